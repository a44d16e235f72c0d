"""When a hop counts as slow: not for a moment, not for little, and only against itself."""

from __future__ import annotations

import itertools

import pytest

from swarm.client.pace import FACTOR, LEAST_S, N_FIRST, N_LAST, Pace, Slow
from swarm.messages import HopTime
from swarm.terms import NodeId

A, B = NodeId("a" * 52), NodeId("b" * 52)


def pace_of(*steps: tuple[float, float]) -> Pace:
    """Each step: what A spent on it, and B; half of it in the queue."""
    pace = Pace()
    for spent in steps:
        pace.note([HopTime(node_id, s / 2, s / 2) for node_id, s in zip((A, B), spent, strict=True)])
    return pace


def test_a_hop_that_takes_five_times_as_long_for_a_while_is_slow() -> None:
    before, now = [(0.1, 0.2)] * N_FIRST, [(0.1, 1.5)] * N_LAST
    assert pace_of(*before, *now).slow_hop() == Slow(B, 1.5, 0.2)
    assert pace_of(*before, *now[1:]).slow_hop() is None, "not for so long yet"
    assert pace_of(*before, *now, *before[:N_LAST]).slow_hop() is None, "it has recovered"


@pytest.mark.parametrize("times", [1.0, FACTOR - 0.1])
def test_less_than_that_is_none(times: float) -> None:
    assert pace_of(*[(1.0, 1.0)] * N_FIRST, *[(1.0, times)] * N_LAST).slow_hop() is None


def test_a_few_milliseconds_are_not_worth_another_route() -> None:
    few_s = LEAST_S * 0.9
    assert pace_of(*[(0.001, 0.001)] * N_FIRST, *[(0.001, few_s)] * N_LAST).slow_hop() is None


def test_prompts_in_between_do_not_make_a_hop_slow() -> None:
    mixed = itertools.islice(itertools.cycle([(0.1, 0.1), (0.1, 0.1), (0.1, 9.0)]), 60)
    assert pace_of(*mixed).slow_hop() is None


def test_of_two_the_one_that_loses_more_is_left_first() -> None:
    slow = pace_of(*[(0.1, 0.1)] * N_FIRST, *[(2.0, 1.0)] * N_LAST).slow_hop()
    assert slow is not None and slow.node_id == A
