from __future__ import annotations

import pytest

from node.experts import Pace, choose_hosts
from node.experts.pace import UNKNOWN_HEDGE_S


@pytest.mark.parametrize(
    ("candidates", "cost_s", "chosen"),
    [
        ({1: ["a"], 5: ["b"]}, {"a": 1.0, "b": 1.0}, {"a": (1,), "b": (5,)}),
        ({1: ["a", "b"], 5: ["b"]}, {"a": 1.0, "b": 1.4}, {"b": (1, 5)}),  # one message less
        ({1: ["a", "b"], 5: ["b"]}, {"a": 1.0, "b": 1.6}, {"a": (1,), "b": (5,)}),  # but not at any price
        ({1: ["a", "b"]}, {"a": 2.0, "b": 1.0}, {"b": (1,)}),
        ({1: ["a", "b"]}, {"a": 1.0, "b": 1.0}, {"a": (1,)}),
        ({1: ["a", "new"], 2: ["a"]}, {"a": 1.0, "new": 0.0}, {"new": (1,), "a": (2,)}),  # the unknown is tried
        ({}, {}, {}),
    ],
)
def test_quick_hosts_and_few_of_them(
    candidates: dict[int, list[str]], cost_s: dict[str, float], chosen: dict[str, tuple[int, ...]]
) -> None:
    assert choose_hosts(candidates, cost_s) == chosen


def test_a_host_is_hedged_after_the_95th_percentile_of_its_answers() -> None:
    pace = Pace()
    assert (pace.expect_s(1), pace.hedge_s(1)) == (0.0, UNKNOWN_HEDGE_S)
    for i in range(96):
        pace.note(1, 0.1 if i % 20 == 19 else 0.01)
    hedge_s = pace.hedge_s(1)
    assert 0.01 <= hedge_s <= 0.1
    assert 0.01 <= pace.expect_s(1) < 0.05


def test_many_rows_are_expected_to_take_longer() -> None:
    pace = Pace()
    pace.note(1, 0.01)
    pace.note(500, 1.0)
    assert pace.expect_s(1) == 0.01
    assert pace.expect_s(250) == pytest.approx(0.5)


def test_noise_is_not_hedged_against() -> None:
    pace = Pace()
    for _ in range(50):
        pace.note(1, 1e-6)
    assert pace.hedge_s(1) == 0.005
