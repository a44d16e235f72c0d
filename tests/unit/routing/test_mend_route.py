"""A route that lost hops keeps the others, with their spans, and fills the gaps with the best that fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from swarm.errors import LayersUncovered
from swarm.facts import Hop, NodeFact, NodeState, Route
from swarm.routing import mend_route
from swarm.terms import Address, Infohash, NodeId, Profile, Span

N_LAYERS = 6
NOW_S = 1000.0
FP32 = Profile("fp32")


def fact(name: str, span: str, **changes: Any) -> NodeFact:
    """The first letters of the alphabet are the faster ones."""
    made = NodeFact(
        node_id=NodeId(name.ljust(52, "a")),
        release=Infohash("ab" * 20),
        address=Address("127.0.0.1", 7000 + ord(name[0])),
        seq=1,
        issued_at_s=NOW_S,
        ttl_s=60.0,
        state=NodeState.SERVING,
        spans=(Span.parse(span),),
        profile=FP32,
        n_layers=N_LAYERS,
        free_sessions=4,
        layer_time_s=0.001 * ord(name[0]),
    )
    return replace(made, **changes)


FACTS = (fact("f", "0:2"), fact("g", "2:4"), fact("h", "4:6"))
BROKEN = Route(tuple(Hop(f.node_id, f.address, f.spans[0]) for f in FACTS), FP32)


def mended(*more: NodeFact, lost: str = "", facts: tuple[NodeFact, ...] = FACTS) -> str:
    exclude = frozenset(fact.node_id for fact in FACTS if fact.node_id[0] in lost)
    route = mend_route(BROKEN, [*facts, *more], now_s=NOW_S, exclude=exclude)
    return " ".join(f"{hop.node_id[0]}{hop.span}" for hop in route.hops)


def test_a_gap_is_filled_by_the_fastest_and_nothing_else_moves() -> None:
    assert mended(fact("m", "2:4"), fact("k", "2:4"), fact("b", "0:6"), lost="g") == "f0:2 b2:4 h4:6"
    assert mended(fact("m", "2:4"), fact("k", "2:4"), lost="g") == "f0:2 k2:4 h4:6"


def test_neighbours_make_one_gap_and_others_two() -> None:
    assert mended(fact("b", "0:6"), lost="gh") == "f0:2 b2:6"
    assert mended(fact("b", "0:6"), lost="fh") == "b0:2 g2:4 b4:6"


def test_a_gap_may_take_several_nodes_and_a_kept_one_again() -> None:
    assert mended(fact("b", "0:3"), fact("c", "3:6"), lost="g") == "f0:2 b2:3 c3:4 h4:6"
    wide = (replace(FACTS[0], spans=(Span(0, 4),)), *FACTS[1:])
    assert mended(facts=wide, lost="g") == "f0:2 f2:4 h4:6", "its session on the first layers stays as it is"


@pytest.mark.parametrize(
    "changes",
    [{"state": NodeState.DRAINING}, {"address": Address("127.0.0.1", 9)}, {"spans": (Span(0, 1),)}],
    ids=["drains", "moved", "hosts less"],
)
def test_a_hop_that_does_not_serve_as_it_did_is_lost_too(changes: dict[str, Any]) -> None:
    changed = (replace(FACTS[0], **changes), *FACTS[1:])
    assert mended(fact("b", "0:2"), facts=changed) == "b0:2 g2:4 h4:6"


def test_a_hop_without_a_fact_is_lost_and_a_full_one_is_not() -> None:
    assert mended(fact("m", "0:2"), facts=FACTS[1:]) == "m0:2 g2:4 h4:6"
    full = tuple(replace(known, free_sessions=0) for known in FACTS)
    assert mended(fact("b", "0:6"), facts=full, lost="g") == "f0:2 b2:4 h4:6"


def test_round_trips_count_where_they_are_known() -> None:
    near, far = fact("m", "2:4"), fact("b", "2:4")
    rtt_s = {near.node_id: 0.001, far.node_id: 1.0}
    route = mend_route(BROKEN, [*FACTS, near, far], now_s=NOW_S, exclude=frozenset([FACTS[1].node_id]), rtt_s=rtt_s)
    assert route.hops[1].node_id == near.node_id


def test_a_gap_that_nobody_fills() -> None:
    with pytest.raises(LayersUncovered):
        mended(fact("m", "2:3"), lost="g")
