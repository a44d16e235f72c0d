"""What flows through a placement: held against all sets of layers, and against what moving comes to."""

from __future__ import annotations

import dataclasses
import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.placement import Budget, PlacementConfig, Standing, decide, survey
from node.placement.flow import Flow, capacity, shares, work_of
from swarm.facts import NodeFact, NodeState
from swarm.terms import Address, Infohash, NodeId, Profile, Span

N_LAYERS = 6
PROFILE = Profile("bf16")
CONFIG = PlacementConfig()

spans = st.tuples(st.integers(0, N_LAYERS - 1), st.integers(1, N_LAYERS)).map(
    lambda edges: Span(edges[0], max(edges[0] + 1, edges[1]))
)
placements = st.lists(st.tuples(spans, st.floats(0.1, 100.0)), min_size=1, max_size=8)


def least_of_all_sets(hosted: list[tuple[Span, float]]) -> float:
    """Those who host any of a set of layers share it, and no set may be asked for more."""
    return min(
        sum(speed for span, speed in hosted if any(idx in span for idx in asked)) / size
        for size in range(1, N_LAYERS + 1)
        for asked in itertools.combinations(range(N_LAYERS), size)
    )


@given(st.lists(placements, min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_capacity_is_what_the_worst_set_of_layers_takes(many: list[list[tuple[Span, float]]]) -> None:
    together = capacity(np.stack([work_of(hosted, N_LAYERS) for hosted in many]))
    assert together == pytest.approx([least_of_all_sets(hosted) for hosted in many], rel=1e-6, abs=1e-6)


@given(placements, spans, st.floats(0.1, 100.0), st.integers(1, N_LAYERS))
@settings(max_examples=60, deadline=None)
def test_where_it_cannot_rise_no_place_makes_it(
    others: list[tuple[Span, float]], here: Span, speed: float, length: int
) -> None:
    flow = Flow(work_of(others, N_LAYERS), N_LAYERS, speed, speed)
    everywhere = [(Span(start, start + length),) for start in range(N_LAYERS - length + 1)]
    staying, *elsewhere = flow.at([(here,), *everywhere])
    if max(elsewhere) > staying * 1.05 + 1e-6:
        assert flow.could_rise((here,), length, 0.05)


def node_id(number: int) -> NodeId:
    return NodeId("n" * 50 + "abcdefghijklmnopqrstuvwxyz"[number // 26] + "abcdefghijklmnopqrstuvwxyz"[number % 26])


def fact(number: int, span: Span, speed: float, n_layers: int) -> NodeFact:
    return NodeFact(
        node_id=node_id(number), release=Infohash("0" * 40), address=Address("127.0.0.1", 1000 + number), seq=1,
        issued_at_s=999.0, ttl_s=60.0, state=NodeState.SERVING, spans=(span,), profile=PROFILE, n_layers=n_layers,
        layer_time_s=1 / speed, placed_at_s=10.0 + number,
    )  # fmt: skip


def look(facts: list[NodeFact], number: int, n_layers: int):  # type: ignore[no-untyped-def]
    own = facts[number]
    budget = Budget(len(own.spans[0]), own.layer_time_s)
    me = Standing(own.node_id, PROFILE, 1000.0, own.spans, own.spans)
    return decide(facts, budget, me, CONFIG, n_layers=n_layers, now_s=1000.0)


def test_a_node_moves_off_layers_that_a_fast_one_carries_alone() -> None:
    """Two slow nodes share 0:4 with one that needs no help; alone on 4:8 is another slow one."""
    facts = [fact(0, Span(0, 4), 1000.0, 8), fact(1, Span(0, 4), 60.0, 8), fact(2, Span(4, 8), 60.0, 8)]
    moved = look(facts, 1, 8)
    assert moved.moves and moved.spans == (Span(4, 8),)
    assert "more flows through the whole model then" in moved.reasons[-1]
    assert not look(facts, 2, 8).moves, "what only it hosts stays"


@pytest.mark.parametrize("seed", range(8))
def test_moving_one_by_one_ends_near_the_optimum_and_never_opens_a_hole(seed: int) -> None:
    """Ten machines that cover the model anyhow: each looks in turn, for as long as somebody moves."""
    draw, n_layers = random.Random(seed), 16
    sizes = [draw.choice((4, 4, 5, 8)) for _ in range(10)]
    speeds = [draw.choice((60.0, 80.0, 100.0, 900.0)) for _ in sizes]
    starts = [0, 4, 8, 12, *(draw.randrange(0, n_layers - size + 1) for size in sizes[4:])]
    starts = [min(start, n_layers - size) for start, size in zip(starts, sizes, strict=True)]
    facts = [
        fact(number, Span(start, start + size), speed, n_layers)
        for number, (start, size, speed) in enumerate(zip(starts, sizes, speeds, strict=True))
    ]

    def flow() -> float:
        hosted = [pair for one in facts for pair in shares(one.spans, 1 / one.layer_time_s)]
        return float(capacity(work_of(hosted, n_layers)[None])[0])

    before, n_moves, is_moving = flow(), 0, True
    while is_moving:
        is_moving = False
        for number in range(len(facts)):
            choice = look(facts, number, n_layers)
            if choice.moves:
                facts[number] = dataclasses.replace(facts[number], spans=choice.spans)
                is_moving, n_moves = True, n_moves + 1
                assert flow() >= before * (1 - 1e-9), "no move makes less flow through"
                before = flow()
                everyone = Standing(node_id(99), PROFILE, 1000.0)
                assert survey(facts, n_layers, 1000.0, everyone).serving.min() > 0
                assert n_moves < 60, "moving ends"
    at_most = min(sum(speeds) / n_layers, _widest(speeds, sizes, n_layers))
    assert before >= 0.85 * at_most


def _widest(speeds: list[float], sizes: list[int], n_layers: int) -> float:
    """No placement takes more: each node gives no layer more than what flows through the whole."""
    low, high = 0.0, sum(speeds)
    for _ in range(40):
        middle = (low + high) / 2
        fits = sum(min(speed, size * middle) for speed, size in zip(speeds, sizes, strict=True)) >= n_layers * middle
        low, high = (middle, high) if fits else (low, middle)
    return low
