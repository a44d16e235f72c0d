"""What routes are planned by besides time: links between nodes, queues, each client's lot, and batches."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.facts import NodeFact, NodeState, Route
from swarm.routing import HOP_OVERHEAD_S, plan_route, route_cost_s
from swarm.terms import Address, Infohash, NodeId, Profile, Span

NOW_S = 1_000_000.0


def node_id(name: str) -> NodeId:
    return NodeId(name.ljust(52, "a"))


def fact(name: str, span: str, layer_time_s: float = 0.004, n_layers: int = 8, **fields: object) -> NodeFact:
    return NodeFact(
        node_id=node_id(name),
        release=Infohash("ab" * 20),
        address=Address("127.0.0.1", 1024),
        seq=1,
        issued_at_s=NOW_S - 5.0,
        ttl_s=60.0,
        state=NodeState.SERVING,
        spans=(Span.parse(span),),
        profile=Profile("bf16"),
        n_layers=n_layers,
        free_sessions=4,
        layer_time_s=layer_time_s,
        **fields,  # type: ignore[arg-type]
    )


def names(route: Route) -> list[str]:
    return [f"{hop.node_id.rstrip('a')} {hop.span}" for hop in route.hops]


def test_the_way_between_two_nodes_counts_not_the_clients_way_to_them() -> None:
    """Both c and d are near to the client; b is near to d alone."""
    facts = [fact("b", "0:4"), fact("c", "4:8", 0.003), fact("d", "4:8")]
    rtts = {node_id(name): 0.010 for name in "bcd"}
    assert names(plan_route(facts, n_layers=8, now_s=NOW_S, rtt_s=rtts)) == ["b 0:4", "c 4:8"]
    links = {(node_id("b"), node_id("c")): 0.1, (node_id("d"), node_id("b")): 0.001}
    route = plan_route(facts, n_layers=8, now_s=NOW_S, rtt_s=rtts, links_s=links)
    assert names(route) == ["b 0:4", "d 4:8"]
    cost_s = route_cost_s(route, facts, rtts, links)
    assert cost_s == pytest.approx(2 * HOP_OVERHEAD_S + 8 * 0.004 + 0.005 + 0.0005 + 0.005)


def test_a_node_where_tokens_wait_is_left_to_others() -> None:
    busy, idle = fact("b", "0:8", 0.001, queue_s=0.05), fact("c", "0:8", 0.002)
    assert names(plan_route([busy, idle], n_layers=8, now_s=NOW_S)) == ["c 0:8"]


def test_nobody_is_believed_to_be_a_thousand_times_as_fast() -> None:
    liar = [fact("b", "0:4", 1e-9), fact("c", "4:8", 0.004)]
    honest = [fact("d", "0:8", 0.003), fact("e", "0:8", 0.005), fact("f", "0:8", 0.004)]
    cost_s = route_cost_s(plan_route([*liar, *honest], n_layers=8, now_s=NOW_S), [*liar, *honest])
    assert cost_s > 4 * 0.004 / 16 + 4 * 0.003


def test_many_clients_share_nodes_that_are_nearly_equal_and_each_keeps_its_own() -> None:
    facts = [fact(name, "0:8", 0.004 + 0.00001 * ord(name)) for name in "bcde"] + [fact("f", "0:8", 0.009)]
    taken: Counter[str] = Counter()
    for number in range(200):
        (name,) = names(plan_route(facts, n_layers=8, now_s=NOW_S, client=f"client {number}"))
        taken[name] += 1
        assert [name] == names(plan_route(facts[::-1], n_layers=8, now_s=NOW_S, client=f"client {number}"))
    assert set(taken) == {"b 0:8", "c 0:8", "d 0:8", "e 0:8"}
    assert max(taken.values()) < 120


def slowest_s(route: Route, facts: list[NodeFact]) -> float:
    """The longest that any node of the route works on one token."""
    times = {f.node_id: f.layer_time_s for f in facts}
    spent: dict[NodeId, float] = {}
    for hop in route.hops:
        spent[hop.node_id] = spent.get(hop.node_id, HOP_OVERHEAD_S) + len(hop.span) * times[hop.node_id]
    return max(spent.values())


def test_batches_are_spread_over_more_nodes() -> None:
    facts = [fact(name, "0:8", 0.010) for name in "bcde"]
    assert len(plan_route(facts, n_layers=8, now_s=NOW_S).hops) == 1
    route = plan_route(facts, n_layers=8, now_s=NOW_S, for_batches=True)
    assert [len(hop.span) for hop in route.hops] == [2, 2, 2, 2]


@given(times=st.lists(st.sampled_from([0.001, 0.002, 0.005, 0.02]), min_size=1, max_size=4))
def test_of_whole_hosts_the_widest_route_is_the_best_there_is(times: list[float]) -> None:
    facts = [fact(name, "0:6", layer_time_s, n_layers=6) for name, layer_time_s in zip("bcde", times, strict=False)]
    route = plan_route(facts, n_layers=6, now_s=NOW_S, for_batches=True)

    def shares(n_layers: int, nodes: tuple[NodeFact, ...]) -> float:
        """The best slowest node over all ways to share the layers among these nodes."""
        if not nodes:
            return 0.0 if n_layers == 0 else float("inf")
        return min(
            max(n * nodes[0].layer_time_s + (HOP_OVERHEAD_S if n else 0.0), shares(n_layers - n, nodes[1:]))
            for n in range(n_layers + 1)
        )

    best = min(shares(6, order) for order in permutations(facts))
    assert slowest_s(route, facts) == pytest.approx(best, abs=1e-8)


@given(
    spans=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 6)).filter(lambda s: s[0] < s[1]), max_size=6),
    times=st.lists(st.sampled_from([0.001, 0.003, 0.02]), min_size=6, max_size=6),
)
def test_for_batches_no_route_is_slower_than_the_quick_one(spans: list[tuple[int, int]], times: list[float]) -> None:
    facts = [fact("b", "0:6", 0.01, n_layers=6)]
    facts += [fact(name, f"{a}:{b}", t, 6) for name, (a, b), t in zip("cdefgh", spans, times, strict=False)]
    quick = plan_route(facts, n_layers=6, now_s=NOW_S)
    wide = plan_route(facts, n_layers=6, now_s=NOW_S, for_batches=True)
    assert slowest_s(wide, facts) <= slowest_s(quick, facts) + 1e-8
