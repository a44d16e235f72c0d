from __future__ import annotations

import dataclasses

from node.experts import Directory
from swarm.facts import NodeFact, NodeState
from swarm.terms import Address, ExpertId, ExpertRange, Infohash, NodeId, Profile, Span

SHAPE = (4, 3)
EXACT = Profile.parse("bf16-exact-amx-123abc")
FACT = NodeFact(
    node_id=NodeId("a" * 52),
    release=Infohash("0" * 40),
    address=Address("127.0.0.1", 7000),
    seq=1,
    issued_at_s=0.0,
    ttl_s=60.0,
    state=NodeState.SERVING,
    spans=(Span(0, 1),),
    profile=EXACT,
    n_layers=4,
    experts=(ExpertRange(Span(1, 3), (0, 2)),),
    n_experts=3,
)


def other(name: str, **changes: object) -> NodeFact:
    return dataclasses.replace(FACT, node_id=NodeId(name * 52), **changes)  # type: ignore[arg-type]


def names(directory: Directory, layer_idx: int, expert_idx: int) -> list[str]:
    return [host.node_id[0] for host in directory.hosts_of(ExpertId(layer_idx, expert_idx))]


def test_single_experts_and_those_of_whole_layers_are_found() -> None:
    directory = Directory(lambda: [FACT], NodeId("z" * 52), EXACT, SHAPE)
    assert names(directory, 0, 1) == ["a"]
    assert names(directory, 2, 2) == ["a"]
    assert names(directory, 2, 1) == names(directory, 3, 0) == []


def test_only_hosts_that_keep_the_profile_and_are_loaded_count_and_never_oneself() -> None:
    facts = [
        FACT,
        other("b", profile=Profile("bf16")),
        other("c", state=NodeState.JOINING, loaded_experts=(ExpertRange(Span(2, 3), (2,)),)),
    ]
    assert names(Directory(lambda: facts, NodeId("z" * 52), EXACT, SHAPE), 2, 2) == ["a", "c"]
    assert names(Directory(lambda: facts, NodeId("z" * 52), EXACT, SHAPE), 1, 2) == ["a"]
    assert names(Directory(lambda: facts, NodeId("a" * 52), EXACT, SHAPE), 2, 2) == ["c"]
    # Who promises no bits may ask anybody of that dtype.
    assert names(Directory(lambda: facts, NodeId("z" * 52), Profile("bf16"), SHAPE), 1, 0) == ["a", "b"]


def test_nodes_of_another_model_are_no_hosts() -> None:
    facts = [other("b", n_layers=5), other("c", n_experts=4)]
    assert names(Directory(lambda: facts, NodeId("z" * 52), EXACT, SHAPE), 1, 0) == []


def test_who_leaves_is_asked_last() -> None:
    leaving = other("b", state=NodeState.DRAINING)
    assert names(Directory(lambda: [leaving, FACT], NodeId("z" * 52), EXACT, SHAPE), 1, 0) == ["a"]
    assert names(Directory(lambda: [leaving], NodeId("z" * 52), EXACT, SHAPE), 1, 0) == ["b"]


def test_news_are_read_in_time() -> None:
    facts, now = [FACT], [0.0]
    directory = Directory(lambda: facts, NodeId("z" * 52), EXACT, SHAPE, clock=lambda: now[0])
    assert names(directory, 1, 0) == ["a"]
    facts[0] = other("b")
    assert names(directory, 1, 0) == ["a"]
    now[0] = 0.2
    assert names(directory, 1, 0) == ["b"]


def test_facts_that_say_the_same_again_are_not_sorted_anew() -> None:
    facts, now = [FACT, other("b"), other("c")], [0.0]
    directory = Directory(lambda: facts, NodeId("z" * 52), EXACT, SHAPE, clock=lambda: now[0])
    hosts = directory.hosts_of(ExpertId(1, 0))
    now[0] = 1.0
    facts[:] = [dataclasses.replace(fact, seq=2, issued_at_s=1.0) for fact in facts]
    assert directory.hosts_of(ExpertId(1, 0)) is hosts
    now[0] = 2.0
    facts[0] = dataclasses.replace(facts[0], state=NodeState.LEFT)
    assert directory.hosts_of(ExpertId(1, 0)) == hosts[1:]
    assert [directory.names(host) for host in hosts[:2]] == [False, True]
