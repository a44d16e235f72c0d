"""The planned route is the cheapest of all, by brute force; ties and refusals are as documented."""

from __future__ import annotations

import dataclasses
import random
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.errors import BadArgument, LayersUncovered
from swarm.facts import Hop, NodeFact, NodeState, Route
from swarm.routing import DEFAULT_LAYER_TIME_S, HOP_OVERHEAD_S, Links, plan_route, route_cost_s
from swarm.terms import Address, Infohash, NodeId, Profile, Span

NOW_S = 1_000_000.0
BF16, FP32 = Profile("bf16"), Profile("fp32")
EXACT = Profile("bf16", "", "amx-0123ab")


def node_id(name: str) -> NodeId:
    return NodeId(name.ljust(52, "a"))


def fact(name: str, *spans: str, n_layers: int = 8, **changes: object) -> NodeFact:
    base = NodeFact(
        node_id=node_id(name),
        release=Infohash("ab" * 20),
        address=Address("127.0.0.1", 1024 + sum(name.encode())),
        seq=1,
        issued_at_s=NOW_S - 5.0,
        ttl_s=60.0,
        state=NodeState.SERVING,
        spans=tuple(Span.parse(span) for span in spans),
        profile=BF16,
        n_layers=n_layers,
        free_sessions=4,
        layer_time_s=0.004,
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def names(route: Route) -> list[str]:
    return [f"{hop.node_id.rstrip('a')} {hop.span}" for hop in route.hops]


def plan(*facts: NodeFact, n_layers: int = 8, **options: object) -> list[str]:
    return names(plan_route(facts, n_layers=n_layers, now_s=NOW_S, **options))  # type: ignore[arg-type]


def every_route(facts: list[NodeFact], n_layers: int, start: int = 0) -> Iterator[tuple[Hop, ...]]:
    """All ways to cut the layers into hops of hosting nodes, consecutive hops on different nodes."""
    if start == n_layers:
        yield ()
    for f in facts:
        for end in range(start + 1, n_layers + 1):
            if all(any(idx in span for span in f.spans) for idx in range(start, end)):
                for rest in every_route(facts, n_layers, end):
                    if not rest or rest[0].node_id != f.node_id:
                        yield (Hop(f.node_id, f.address, Span(start, end)), *rest)


@st.composite
def swarms(draw: st.DrawFn) -> tuple[list[NodeFact], int, dict[NodeId, float], Links]:
    n_layers = draw(st.integers(1, 6))
    facts, rtts = [], {}
    for name in "bcde"[: draw(st.integers(0, 4))]:
        spans = draw(
            st.lists(
                st.tuples(st.integers(0, n_layers - 1), st.integers(1, n_layers)).filter(lambda s: s[0] < s[1]),
                max_size=2,
            )
        )
        f = fact(
            name,
            n_layers=n_layers,
            spans=tuple(Span(*span) for span in spans),
            layer_time_s=draw(st.sampled_from([0.0, 0.001, 0.003, 0.02, float("nan"), -1.0])),
            state=draw(st.sampled_from([NodeState.SERVING] * 4 + [NodeState.JOINING, NodeState.DRAINING])),
            free_sessions=draw(st.sampled_from([0, 1, 5, 5])),
            profile=draw(st.sampled_from([BF16, EXACT, EXACT, FP32])),
            queue_s=draw(st.sampled_from([0.0, 0.0, 0.005])),
        )
        facts.append(f)
        if draw(st.booleans()):
            rtts[f.node_id] = draw(st.sampled_from([0.0, 0.001, 0.08]))
    pairs = [(a.node_id, b.node_id) for a in facts for b in facts if a is not b]
    links = draw(st.dictionaries(st.sampled_from(pairs), st.sampled_from([0.0, 0.004, 0.2]))) if pairs else {}
    return facts, n_layers, rtts, links


@given(swarms(), st.randoms(use_true_random=False))
@settings(max_examples=300)
def test_the_route_is_the_cheapest_of_all(
    case: tuple[list[NodeFact], int, dict[NodeId, float], Links], rng: random.Random
) -> None:
    facts, n_layers, rtts, links = case
    able = [f for f in facts if f.state is NodeState.SERVING and f.free_sessions > 0]
    profiles = {profile for f in facts for profile in (f.profile, f.profile.base)}
    routes = [
        Route(hops, profile)
        for profile in profiles
        for hops in every_route([f for f in able if f.profile.satisfies(profile)], n_layers)
    ]
    if not routes:
        with pytest.raises(LayersUncovered) as caught:
            plan_route(facts, n_layers=n_layers, now_s=NOW_S, rtt_s=rtts, links_s=links)
        missing = [
            {i for i in range(n_layers) if not any(i in s for f in able if f.profile.satisfies(p) for s in f.spans)}
            for p in profiles or {BF16}
        ]
        assert set(caught.value.layers) in missing
        assert len(caught.value.layers) == min(len(m) for m in missing)
        return
    route = plan_route(facts, n_layers=n_layers, now_s=NOW_S, rtt_s=rtts, links_s=links)

    def weighed(route: Route) -> int:
        return round(route_cost_s(route, facts, rtts, links) * 1e9) * (3 if route.profile == BF16 else 2)

    cheapest = min(map(weighed, routes))
    assert weighed(route) == cheapest
    equals = [r for r in routes if weighed(r) == cheapest and r.profile == route.profile]
    assert len(route.hops) == min(len(r.hops) for r in equals)
    assert all(f.profile.satisfies(route.profile) for f in facts if f.node_id in {hop.node_id for hop in route.hops})

    rng.shuffle(facts)
    assert plan_route(facts, n_layers=n_layers, now_s=NOW_S, rtt_s=rtts, links_s=links) == route


def test_cost_is_hops_plus_layers_plus_the_way_back() -> None:
    facts = [fact("b", "0:5", layer_time_s=0.001), fact("c", "5:8", layer_time_s=0.003)]
    rtts = {node_id("b"): 0.020, node_id("c"): 0.050}
    route = plan_route(facts, n_layers=8, now_s=NOW_S, rtt_s=rtts)
    assert route_cost_s(route, facts, rtts) == pytest.approx(2 * HOP_OVERHEAD_S + 0.010 + 0.025 + 0.005 + 0.009 + 0.025)


def test_a_part_of_a_span_is_used_where_another_node_is_faster() -> None:
    slow, fast = fact("b", "0:8", layer_time_s=0.010), fact("c", "4:6", layer_time_s=0.001)
    assert plan(slow, fast) == ["b 0:4", "c 4:6", "b 6:8"]
    assert plan(slow, dataclasses.replace(fast, layer_time_s=0.009)) == ["b 0:8"]


def test_overlapping_hosts_are_cut_in_favour_of_the_faster() -> None:
    assert plan(fact("b", "0:6", layer_time_s=0.010), fact("c", "3:8", layer_time_s=0.002)) == ["b 0:3", "c 3:8"]
    assert plan(fact("b", "0:6", layer_time_s=0.002), fact("c", "3:8", layer_time_s=0.010)) == ["b 0:6", "c 6:8"]


def test_a_far_node_is_avoided_and_one_far_node_beats_two_near_ones_only_on_cost() -> None:
    far, near_a, near_b = fact("b", "0:8"), fact("c", "0:4"), fact("d", "4:8")
    ids = {f.node_id for f in (far, near_a, near_b)}
    assert plan(far, near_a, near_b, rtt_s={i: 0.2 if i == far.node_id else 0.001 for i in ids}) == ["c 0:4", "d 4:8"]
    assert plan(far, near_a, near_b, rtt_s=dict.fromkeys(ids, 0.001)) == ["b 0:8"]


def test_equal_routes_go_to_the_smaller_id() -> None:
    assert plan(fact("d", "0:8"), fact("b", "0:8"), fact("c", "0:8")) == ["b 0:8"]


def test_adjacent_spans_of_one_node_make_one_hop() -> None:
    assert plan(fact("b", "0:4", "4:8")) == ["b 0:8"]
    assert plan(fact("b", "0:3", "6:8"), fact("c", "3:6")) == ["b 0:3", "c 3:6", "b 6:8"]


def test_a_node_that_has_not_measured_counts_as_the_median() -> None:
    new = fact("b", "0:8", layer_time_s=0.0)
    assert plan(new, fact("c", "0:8", layer_time_s=0.004), fact("d", "0:8", layer_time_s=0.009)) == ["c 0:8"]
    assert plan(new, fact("c", "0:8", layer_time_s=0.004)) == ["b 0:8"]
    cost_s = route_cost_s(plan_route([new], n_layers=8, now_s=NOW_S), [new])
    assert cost_s == pytest.approx(HOP_OVERHEAD_S + 8 * DEFAULT_LAYER_TIME_S)


def test_a_node_of_unknown_distance_is_not_taken_for_the_nearest() -> None:
    facts = [fact("b", "0:8"), fact("c", "0:8"), fact("d", "0:8")]
    assert plan(*facts, rtt_s={node_id("c"): 0.010, node_id("d"): 0.080}) == ["c 0:8"]


@pytest.mark.parametrize("layer_time_s", [float("nan"), float("inf"), -5.0, 1e300])
def test_a_nonsensical_layer_time_gains_nothing(layer_time_s: float) -> None:
    liar, honest = fact("c", "0:8", layer_time_s=layer_time_s), fact("b", "0:8", layer_time_s=0.004)
    assert plan(liar, honest) == ["b 0:8"]
    assert plan(liar) == ["c 0:8"]


def test_one_profile_for_the_whole_route() -> None:
    facts = [fact("b", "0:4"), fact("c", "4:8", profile=FP32), fact("d", "0:8", profile=FP32, layer_time_s=0.009)]
    route = plan_route(facts, n_layers=8, now_s=NOW_S)
    assert route.profile == FP32
    assert names(route) == ["d 0:4", "c 4:8"]


def test_the_fastest_profile_is_taken_unless_one_is_asked_for() -> None:
    facts = [fact("b", "0:8", profile=FP32, layer_time_s=0.001), fact("c", "0:8", layer_time_s=0.002)]
    assert plan(*facts) == ["b 0:8"]
    assert plan(*facts, profile=BF16) == ["c 0:8"]
    exact = dataclasses.replace(facts[1], profile=EXACT)
    assert plan(facts[0], dataclasses.replace(exact, layer_time_s=0.001)) == ["c 0:8"], "equal ones by name"


def test_a_promise_of_the_same_tokens_is_worth_half_the_time_again() -> None:
    fast, exact = fact("b", "0:8", layer_time_s=0.010), fact("c", "0:8", profile=EXACT, layer_time_s=0.014)
    assert plan(fast, exact) == ["c 0:8"]
    assert plan(fast, dataclasses.replace(exact, layer_time_s=0.017)) == ["b 0:8"]


def test_quantised_nodes_serve_where_no_others_can_or_where_they_are_asked_for() -> None:
    int8 = Profile("bf16", "int8", "amx-0123ab")
    plain, quick = fact("b", "0:8", layer_time_s=0.010), fact("c", "0:8", profile=int8, layer_time_s=0.001)
    assert plan(plain, quick) == ["b 0:8"]
    assert plan(quick) == ["c 0:8"]
    assert plan(plain, quick, profile=int8) == ["c 0:8"]


def test_nodes_of_different_exact_profiles_make_a_route_that_promises_less() -> None:
    facts = [fact("b", "0:4", profile=EXACT), fact("c", "4:8", profile=Profile("bf16", "", "avx512bf16-000000"))]
    route = plan_route(facts, n_layers=8, now_s=NOW_S)
    assert (route.profile, names(route)) == (BF16, ["b 0:4", "c 4:8"])
    with pytest.raises(LayersUncovered, match="its profile is bf16-exact-avx512bf16-000000"):
        plan(*facts, profile=EXACT)
    whole = fact("d", "0:8", profile=EXACT)
    assert plan_route([*facts, whole], n_layers=8, now_s=NOW_S).profile == EXACT


def test_of_two_facts_of_one_node_the_higher_seq_counts() -> None:
    old, new = fact("b", "0:8", seq=3), fact("b", "0:4", seq=4)
    for facts in ([old, new], [new, old]):
        with pytest.raises(LayersUncovered) as caught:
            plan(*facts)
        assert caught.value.layers == (4, 5, 6, 7)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"state": NodeState.JOINING}, "it is joining"),
        ({"state": NodeState.DRAINING}, "it is draining"),
        ({"free_sessions": 0}, "it is full"),
        ({"profile": FP32}, "its profile is fp32, not bf16"),
        ({"issued_at_s": NOW_S - 60.0}, "its fact has expired"),
        ({"n_layers": 9}, "it speaks of a model with 9 layers"),
    ],
)
def test_an_uncovered_layer_is_named_with_the_reason(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(LayersUncovered) as caught:
        plan(fact("b", "0:4"), fact("c", "2:8", **changes), profile=BF16)
    assert caught.value.layers == (4, 5, 6, 7)
    assert "layers 4:8 of 8" in caught.value.message
    assert f"{node_id('c')[:8]} hosts 2:8, but {reason}" in caught.value.message
    assert node_id("b")[:8] not in caught.value.message


def test_a_joining_node_is_routed_over_where_it_has_loaded_layers() -> None:
    joining = fact("c", "2:8", state=NodeState.JOINING, loaded_spans=(Span(4, 6),))
    assert plan(fact("b", "0:4"), joining, fact("d", "6:8")) == ["b 0:4", "c 4:6", "d 6:8"]
    with pytest.raises(LayersUncovered, match="hosts 2:8, but it has loaded only 4:6 so far") as caught:
        plan(fact("b", "0:4"), joining)
    assert caught.value.layers == (6, 7)


def test_an_excluded_node_is_named_as_such() -> None:
    with pytest.raises(LayersUncovered, match="excluded, having failed") as caught:
        plan(fact("b", "0:8"), exclude=frozenset({node_id("b")}))
    assert caught.value.layers == tuple(range(8))


def test_nobody_at_all() -> None:
    with pytest.raises(LayersUncovered, match="no node of this release is known at all") as caught:
        plan()
    assert caught.value.layers == tuple(range(8))
    with pytest.raises(LayersUncovered, match=r"layers 0:2, 5:8 of 8 .* are known .1. none hosts them"):
        plan(fact("b", "2:5"))


def test_a_long_list_of_hosts_is_cut_short() -> None:
    facts = [fact(f"b{c}", "0:8", free_sessions=0) for c in "bcdefghijk"]
    with pytest.raises(LayersUncovered, match="2 others do not count either"):
        plan(*facts)


def test_nonsense_from_our_own_side_is_refused() -> None:
    with pytest.raises(BadArgument, match="0 layers"):
        plan_route([], n_layers=0, now_s=NOW_S)
    with pytest.raises(BadArgument, match="round-trip"):
        plan(fact("b", "0:8"), rtt_s={node_id("b"): float("nan")})
    with pytest.raises(BadArgument, match="no fact"):
        route_cost_s(plan_route([fact("b", "0:8")], n_layers=8, now_s=NOW_S), [])


def lines_run(facts: list[NodeFact], n_layers: int) -> int:
    """How many lines of Python planning over these takes: work that no other process can lengthen."""
    n_lines = 0

    def trace(_frame: object, event: str, _argument: object) -> object:
        nonlocal n_lines
        n_lines += event == "line"
        return trace

    tracing_before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        assert plan_route(facts, n_layers=n_layers, now_s=NOW_S).n_layers == n_layers
    finally:
        sys.settrace(tracing_before)
    return n_lines


def test_the_work_grows_with_the_nodes_and_not_faster() -> None:
    rng, facts = random.Random(0), []
    for i in range(400):
        start = rng.randrange(0, 85)
        span = f"{start}:{min(88, start + rng.randrange(1, 20))}"
        name = "".join("bcdefghijk"[int(digit)] for digit in f"{i:04}")
        facts.append(fact(name, span, n_layers=88, layer_time_s=rng.uniform(0.001, 0.02)))
    assert lines_run(facts, 88) < 2.5 * lines_run(facts[:200], 88), "double the nodes, double the work"
