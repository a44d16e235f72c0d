from __future__ import annotations

import dataclasses

from node.placement import choose_experts, heat_of
from swarm.facts import LayerHeat, NodeFact, NodeState
from swarm.terms import Address, ExpertId, ExpertRange, Infohash, NodeId, Profile, Span

EVERY = [ExpertId(layer_idx, expert_idx) for layer_idx in range(2) for expert_idx in range(4)]
HEAT = {ExpertId(0, 1): 0.9, ExpertId(0, 2): 0.6, ExpertId(1, 3): 0.8, ExpertId(1, 0): 0.7}


def choose(n_experts: int, replicas: dict[ExpertId, int], near: tuple[int, ...] = ()) -> list[str]:
    chosen = choose_experts(HEAT, replicas, n_experts, all_experts=EVERY, near=near)
    return [f"{expert.layer_idx}:{expert.expert_idx}" for expert in chosen]


def test_holes_come_first_whatever_their_heat() -> None:
    replicas = {expert: 1 for expert in EVERY if expert != ExpertId(0, 3)}
    assert choose(2, replicas) == ["0:1", "0:3"]


def test_then_the_most_rows_a_host() -> None:
    assert choose(2, dict.fromkeys(EVERY, 1)) == ["0:1", "1:3"]
    assert choose(2, {**dict.fromkeys(EVERY, 1), ExpertId(0, 1): 5}) == ["1:0", "1:3"]


def test_where_the_router_is_here_the_hottest_save_the_most_round_trips() -> None:
    replicas = {**dict.fromkeys(EVERY, 1), ExpertId(0, 1): 5}
    assert choose(2, replicas, near=(0,)) == ["0:1", "0:2"]


def test_ties_go_by_layer_and_index_and_there_is_no_more_than_all() -> None:
    assert choose(3, {}) == ["0:1", "1:0", "1:3"]
    assert choose(0, {}) == []
    assert len(choose(99, {})) == len(EVERY)


def test_heat_by_the_facts() -> None:
    fact = NodeFact(
        node_id=NodeId("a" * 52),
        release=Infohash("0" * 40),
        address=Address("127.0.0.1", 7000),
        seq=1,
        issued_at_s=0.0,
        ttl_s=60.0,
        state=NodeState.SERVING,
        spans=(Span(0, 1),),
        profile=Profile("fp32"),
        n_layers=2,
        experts=(ExpertRange(Span(1, 2), (3,)),),
        n_experts=4,
        heat=(LayerHeat(0, bytes((255, 51, 0, 204))),),
    )
    other = dataclasses.replace(
        fact, node_id=NodeId("b" * 52), spans=(), heat=(LayerHeat(0, bytes((51, 255, 0, 204))),)
    )
    assert heat_of([fact, other])[ExpertId(0, 1)] == 0.6
