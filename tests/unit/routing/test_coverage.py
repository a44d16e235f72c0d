from __future__ import annotations

import dataclasses

import pytest

from swarm.errors import BadArgument
from swarm.facts import NodeFact, NodeState
from swarm.routing import coverage, layer_ranges
from swarm.terms import Address, Infohash, NodeId, Profile, Span

FACT = NodeFact(
    node_id=NodeId("b" * 52),
    release=Infohash("ab" * 20),
    address=Address("127.0.0.1", 7000),
    seq=1,
    issued_at_s=100.0,
    ttl_s=60.0,
    state=NodeState.SERVING,
    spans=(Span(0, 3),),
    profile=Profile("bf16"),
    n_layers=5,
)


def other(letter: str, *spans: Span, **changes: object) -> NodeFact:
    return dataclasses.replace(FACT, node_id=NodeId(letter * 52), spans=spans, **changes)  # type: ignore[arg-type]


def test_hosts_are_counted_per_layer_full_or_not_as_far_as_one_session_can_use_them() -> None:
    exact = other("c", Span(2, 4), profile=Profile("bf16", "", "amx-0123ab"))
    assert coverage([FACT, exact], 5, 120.0) == (1, 1, 2, 1, 0)
    stranger = dataclasses.replace(exact, profile=Profile("fp32"))
    assert coverage([FACT, stranger], 5, 120.0) == (1, 1, 1, 0, 0)
    assert coverage([], 3, 120.0) == (0, 0, 0)


def test_overlapping_claims_of_one_node_count_once() -> None:
    assert coverage([other("c", Span(0, 3), Span(1, 4))], 5, 120.0) == (1, 1, 1, 1, 0)
    assert coverage([FACT, dataclasses.replace(FACT, seq=2, spans=(Span(4, 5),))], 5, 120.0) == (0, 0, 0, 0, 1)


@pytest.mark.parametrize("changes", [{"state": NodeState.JOINING}, {"state": NodeState.DRAINING}, {"ttl_s": 20.0}])
def test_who_does_not_serve_does_not_count(changes: dict[str, object]) -> None:
    assert coverage([FACT, other("c", Span(0, 5), **changes)], 5, 120.0) == (1, 1, 1, 0, 0)


def test_what_a_joining_node_has_loaded_counts_already() -> None:
    joining = other("c", Span(0, 5), state=NodeState.JOINING, loaded_spans=(Span(3, 5),))
    assert coverage([FACT, joining], 5, 120.0) == (1, 1, 1, 1, 1)
    assert dataclasses.replace(joining, state=NodeState.DRAINING).served_spans == ()
    with pytest.raises(BadArgument, match="does not host"):
        other("c", Span(0, 2), state=NodeState.JOINING, loaded_spans=(Span(1, 3),))


def test_a_fact_expires_at_its_ttl() -> None:
    assert coverage([FACT], 5, 159.9)[0] == 1
    assert coverage([FACT], 5, 160.0)[0] == 0


def test_a_fact_about_another_depth_does_not_count() -> None:
    assert coverage([FACT], 6, 120.0) == (0,) * 6


def test_layer_ranges_are_written_as_spans_are() -> None:
    assert layer_ranges([7, 0, 1, 2]) == "0:3, 7:8"
    assert layer_ranges([]) == ""
