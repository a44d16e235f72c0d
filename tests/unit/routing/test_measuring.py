"""Whom a client measures before it chooses: those who might make a better route, and no more than it may."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from swarm.facts import NodeFact, NodeState
from swarm.routing import plan_route, worth_measuring
from swarm.routing.measuring import N_GOOD
from swarm.terms import Address, ExpertRange, Infohash, NodeId, Profile, Span

NOW_S = 1_000_000.0


def node_id(number: int) -> NodeId:
    return NodeId("n" * 50 + "abcdefghijklmnopqrstuvwxyz"[number // 26] + "abcdefghijklmnopqrstuvwxyz"[number % 26])


def fact(number: int, span: str = "0:8", layer_time_s: float = 0.004, **fields: object) -> NodeFact:
    known: dict[str, object] = {"state": NodeState.SERVING, "free_sessions": 4, "ttl_s": 60.0, **fields}
    known = {"spans": (Span.parse(span),), "profile": Profile("bf16"), **known}
    return NodeFact(
        node_id=node_id(number), release=Infohash("ab" * 20), address=Address("127.0.0.1", 1 + number), seq=1,
        issued_at_s=NOW_S - 5.0, n_layers=8, layer_time_s=layer_time_s, **known,  # type: ignore[arg-type]
    )  # fmt: skip


def asked(
    facts: list[NodeFact],
    rtts: dict[NodeId, float] | None = None,
    links: dict[tuple[NodeId, NodeId], float] | None = None,
    n: int = 16,
    **route: Any,
) -> list[NodeId]:
    wanted = worth_measuring(facts, n, n_layers=8, now_s=NOW_S, rtt_s=rtts or {}, links_s=links or {}, **route)
    return [one.node_id for one in wanted]


def test_the_fastest_are_asked_first_and_no_more_than_asked_for() -> None:
    facts = [fact(number, layer_time_s=0.001 * (9 - number)) for number in range(9)]
    assert asked(facts, n=2) == [node_id(8), node_id(7)]


def test_who_cannot_be_better_than_those_who_were_measured_is_not_asked() -> None:
    near = [fact(number, layer_time_s=0.002) for number in range(N_GOOD)]
    slow, fast = fact(30, layer_time_s=0.5), fact(31, layer_time_s=0.0015)
    rtts = {one.node_id: 0.010 for one in near}
    assert asked([*near, slow, fast], rtts) == [fast.node_id]
    assert asked([*near, slow], rtts) == []


def test_every_layer_has_its_own_best() -> None:
    """A crowd of the fastest on 0:4 does not keep the only host of 4:8 from being asked."""
    crowd = [fact(number, "0:4", 0.001) for number in range(N_GOOD + 3)]
    sole = fact(40, "4:8", 0.1)
    wanted = asked([*crowd, sole])
    assert len(wanted) == N_GOOD + 1 and sole.node_id in wanted


def test_of_equally_fast_ones_those_near_a_near_node_come_first() -> None:
    met = [fact(0, layer_time_s=0.004), fact(1, layer_time_s=0.004)]
    far, near = fact(2), fact(3)
    rtts = {node_id(0): 0.005, node_id(1): 0.200}
    links = {(node_id(1), far.node_id): 0.010, (near.node_id, node_id(0)): 0.010}
    assert asked([*met, far, near], rtts, links)[0] == near.node_id


def test_who_takes_no_session_is_not_asked() -> None:
    full, leaving, gone = fact(1, free_sessions=0), fact(2, state=NodeState.DRAINING), fact(3, ttl_s=1.0)
    assert asked([fact(0), full, leaving, gone]) == [node_id(0)]


INT8, EXACT = Profile("bf16", "int8"), Profile("bf16", exactness="amx-3fa2c1")


def test_who_has_another_profile_than_the_route_is_not_asked() -> None:
    plain, quick, exact = fact(0), fact(1, profile=INT8, layer_time_s=0.001), fact(2, profile=EXACT)
    facts = [plain, quick, exact]
    assert asked(facts, profile=Profile("bf16")) == [node_id(0), node_id(2)], "whose promise may be more"
    assert asked(facts, profile=EXACT) == [node_id(2)]
    assert asked(facts, profile=INT8) == [node_id(1)]


def test_where_any_profile_will_do_those_in_which_no_route_is_whole_are_not_asked() -> None:
    quick = fact(1, profile=INT8, layer_time_s=0.001)
    assert asked([fact(0), quick]) == [node_id(0)], "a quantised one is never taken where another is there"
    assert asked([fact(0, "0:4"), quick]) == [node_id(1)]
    assert asked([fact(0, "0:4"), quick, fact(2, "4:8", profile=EXACT)]) == [node_id(0), node_id(2)], "together"
    assert asked([fact(0, "0:4"), quick], silent=frozenset({node_id(1)})) == [], "and it gave no answer"


def test_who_is_to_be_avoided_is_not_asked() -> None:
    assert asked([fact(0), fact(1)], exclude=frozenset({node_id(0)})) == [node_id(1)]


def test_trunks_are_asked_where_their_experts_have_hosts() -> None:
    layers = Span(0, 8)
    trunk = fact(0, spans=(), trunks=(layers,), n_experts=2, experts=(ExpertRange(layers, (0,)),))
    rest = fact(1, spans=(), experts=(ExpertRange(layers, (1,)),), n_experts=2, free_sessions=0)
    assert asked([trunk]) == []
    assert asked([trunk, rest]) == [node_id(0)]


@given(st.integers(0, 10_000))
def test_the_order_of_the_facts_does_not_matter_and_asking_ends(seed: int) -> None:
    draw = random.Random(seed)
    facts = [
        fact(number, f"{start}:{start + 4}", draw.choice((0.001, 0.01)))
        for number, start in enumerate(draw.choices((0, 2, 4), k=40))
    ]
    rtts: dict[NodeId, float] = {}
    for _ in range(40):
        wanted = asked(facts, rtts)
        assert wanted == asked(draw.sample(facts, len(facts)), rtts)
        if not wanted:
            break
        assert not rtts.keys() & set(wanted)
        rtts |= {one: draw.uniform(0.001, 0.2) for one in wanted}
    assert not asked(facts, rtts)


def test_a_far_node_that_looked_best_is_left_once_it_was_measured() -> None:
    facts = [fact(number, layer_time_s=0.004 + 0.0001 * number) for number in range(12)]
    trips = {one.node_id: 0.3 if number < 4 else 0.002 for number, one in enumerate(facts)}
    rtts = {one: trips[one] for one in asked(facts)}
    route = plan_route(facts, n_layers=8, now_s=NOW_S, rtt_s=rtts)
    assert trips[route.hops[0].node_id] == 0.002
