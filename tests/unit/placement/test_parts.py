"""Machines without room for a whole layer: together they make layers whole, then they share what is asked for most."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from node.placement import PartsBudget, Standing, decide_parts
from swarm.facts import LayerHeat, NodeFact, NodeState
from swarm.terms import Address, ExpertId, Infohash, NodeId, Profile, Span, merge_experts

NOW_S = 1000.0
PROFILE = Profile("bf16")
N_LAYERS, N_EXPERTS = 3, 4
TRUNK, EXPERT = 10, 30


def fact(
    number: int, *, spans: tuple[Span, ...] = (), experts: tuple[ExpertId, ...] = (), **fields: object
) -> NodeFact:
    known: dict[str, object] = {"state": NodeState.SERVING, "placed_at_s": 1.0 + number, "profile": PROFILE}
    return NodeFact(
        node_id=NodeId(f"{number:052}"),
        release=Infohash("0" * 40),
        address=Address("127.0.0.1", 1000),
        seq=1,
        issued_at_s=NOW_S - 1,
        ttl_s=60.0,
        spans=spans,
        n_layers=N_LAYERS,
        n_experts=N_EXPERTS,
        experts=merge_experts(experts),
        **{**known, **fields},  # type: ignore[arg-type]
    )


def choose(facts: list[NodeFact], n_params: int, placed_at_s: float = NOW_S, number: int = 999, **budget: bool):  # type: ignore[no-untyped-def]
    me = Standing(NodeId(f"{number:052}"), PROFILE, placed_at_s)
    sizes = PartsBudget(n_params, TRUNK, EXPERT, **budget)
    return decide_parts(facts, sizes, me, n_layers=N_LAYERS, n_experts=N_EXPERTS, now_s=NOW_S)


def test_a_layer_is_made_whole_before_the_next_is_begun() -> None:
    first = choose([], TRUNK + 2 * EXPERT)
    assert (first.trunks, first.experts) == ((Span(0, 1),), (ExpertId(0, 0), ExpertId(0, 1)))
    claimed = fact(1, experts=first.experts, trunks=first.trunks, state=NodeState.JOINING)
    second = choose([claimed], TRUNK + 2 * EXPERT)
    assert second.experts == (ExpertId(0, 2), ExpertId(0, 3))


def test_of_two_that_claim_the_same_experts_the_later_takes_others() -> None:
    both = choose([], TRUNK + 2 * EXPERT)
    claims = [
        fact(n, experts=both.experts, trunks=both.trunks, state=NodeState.JOINING, placed_at_s=NOW_S + n)
        for n in (1, 2)
    ]
    assert choose(claims, TRUNK + 2 * EXPERT, NOW_S + 1, 1).experts == both.experts
    assert not set(choose(claims, TRUNK + 2 * EXPERT, NOW_S + 2, 2).experts) & set(both.experts)


def test_whole_layers_elsewhere_are_trunk_and_experts_too() -> None:
    choice = choose([fact(1, spans=(Span(0, 2),))], TRUNK + EXPERT)
    assert (choice.trunks, choice.experts) == ((Span(2, 3),), (ExpertId(2, 0),))


def test_where_nothing_is_missing_the_hot_ones_are_shared() -> None:
    heat = tuple(LayerHeat(idx, bytes([10, 10, 200 if idx == 1 else 20, 10])) for idx in range(N_LAYERS))
    choice = choose([fact(1, spans=(Span(0, 3),), heat=heat)], EXPERT)
    assert (choice.trunks, choice.experts) == ((), (ExpertId(1, 2),))
    assert any("1:2 have the most rows" in reason for reason in choice.reasons)


def test_a_machine_without_room_for_the_ends_takes_experts_only() -> None:
    choice = choose([], 2 * EXPERT, takes_trunks=False)
    assert (choice.trunks, len(choice.experts)) == ((), 2)


@given(sizes=st.lists(st.integers(EXPERT, 5 * EXPERT), min_size=1, max_size=30))
def test_one_after_the_other_they_cover_what_they_have_room_for_and_keep_their_budgets(sizes: list[int]) -> None:
    facts: list[NodeFact] = []
    for number, n_params in enumerate(sizes):
        choice = choose(facts, n_params)
        assert TRUNK * sum(map(len, choice.trunks)) + EXPERT * len(choice.experts) <= n_params
        assert len(set(choice.experts)) == len(choice.experts)
        facts.append(fact(number, experts=choice.experts, trunks=choice.trunks))
    hosted = {expert for f in facts for experts in f.experts for expert in experts}
    n_slots = sum((n_params - N_LAYERS * TRUNK) // EXPERT for n_params in sizes)
    assert len(hosted) >= min(n_slots, N_LAYERS * N_EXPERTS)


def test_a_claim_of_which_nothing_comes_expires() -> None:
    claimed = fact(1, experts=[ExpertId(0, 0)], trunks=(Span(0, 1),), state=NodeState.JOINING)
    claimed = dataclasses.replace(claimed, issued_at_s=99_999.0)
    me = Standing(NodeId(f"{999:052}"), PROFILE, 100_000.0)
    sizes = PartsBudget(TRUNK + EXPERT, TRUNK, EXPERT)
    again = decide_parts([claimed], sizes, me, n_layers=N_LAYERS, n_experts=N_EXPERTS, now_s=100_000.0)
    assert (again.trunks, again.experts) == ((Span(0, 1),), (ExpertId(0, 0),))
