"""Trunks and experts apart: a trunk serves where all of its experts have hosts, and costs a round trip a layer more."""

from __future__ import annotations

import dataclasses

import pytest

from swarm.errors import LayersUncovered
from swarm.facts import NodeFact, NodeState, Route
from swarm.routing import coverage, expert_coverage, mend_route, missing_experts, plan_route
from swarm.terms import Address, ExpertId, ExpertRange, Infohash, NodeId, Profile, Span

EXACT, OTHER = Profile.parse("bf16-exact-amx-123abc"), Profile.parse("bf16-exact-amx-456def")
N_LAYERS, N_EXPERTS, NOW_S = 6, 4, 10.0


def node(name: str, *spans: str, trunks: str = "", experts: str = "", **changes: object) -> NodeFact:
    """experts: "0:6 0,1" for experts 0 and 1 of the layers 0:6."""
    ranges = []
    if experts:
        layers, _, idxs = experts.partition(" ")
        ranges.append(ExpertRange(Span.parse(layers), tuple(map(int, idxs.split(",")))))
    fact = NodeFact(
        node_id=NodeId(name * 52),
        release=Infohash("0" * 40),
        address=Address("127.0.0.1", 7000),
        seq=1,
        issued_at_s=0.0,
        ttl_s=60.0,
        state=NodeState.SERVING,
        spans=tuple(map(Span.parse, spans)),
        profile=EXACT,
        n_layers=N_LAYERS,
        free_sessions=4,
        layer_time_s=0.001,
        trunks=(Span.parse(trunks),) if trunks else (),
        experts=tuple(ranges),
        n_experts=N_EXPERTS,
    )
    return dataclasses.replace(fact, **changes)  # type: ignore[arg-type]


TRUNK = node("t", trunks="0:6")
LOW, HIGH = node("l", experts="0:6 0,1", free_sessions=0), node("h", experts="0:6 2,3", free_sessions=0)


def planned(*facts: NodeFact, **options: object) -> Route:
    return plan_route(facts, n_layers=N_LAYERS, now_s=NOW_S, **options)  # type: ignore[arg-type]


def test_a_trunk_serves_with_hosts_for_all_of_its_experts() -> None:
    assert str(planned(TRUNK, LOW, HIGH)) == "tttttttt[0:6]"
    assert coverage([TRUNK, LOW, HIGH], N_LAYERS, NOW_S) == (1,) * 6
    assert expert_coverage([TRUNK, LOW, HIGH], N_LAYERS, N_EXPERTS, NOW_S) == ((1,) * 4,) * 6


@pytest.mark.parametrize(
    "high",
    [
        node("h", experts="0:6 2"),
        node("h", experts="0:6 2,3", profile=OTHER),
        node("h", experts="0:6 2,3", issued_at_s=-100.0),
        node("h", experts="0:6 2,3", state=NodeState.JOINING),
    ],
    ids=["one is missing", "of another profile", "expired", "not loaded"],
)
def test_and_not_without(high: NodeFact) -> None:
    assert coverage([TRUNK, LOW, high], N_LAYERS, NOW_S) == (0,) * 6
    with pytest.raises(LayersUncovered, match=r"layer 0 expert [23] has no host") as caught:
        planned(TRUNK, LOW, high)
    assert caught.value.layers == tuple(range(6))


def test_a_hole_is_named_and_leaves_the_other_layers_served() -> None:
    high = node("h", experts="0:5 2,3")
    assert coverage([TRUNK, LOW, high], N_LAYERS, NOW_S) == (1, 1, 1, 1, 1, 0)
    assert missing_experts([TRUNK, LOW, high], [5]) == (ExpertId(5, 2), ExpertId(5, 3))
    with pytest.raises(LayersUncovered, match="layer 5 expert 2 has no host, layer 5 expert 3 has no host"):
        planned(TRUNK, LOW, high)
    # A whole layer elsewhere brings its experts with it.
    route = planned(TRUNK, LOW, high, node("w", "5:6", layer_time_s=1.0))
    assert str(route) == "tttttttt[0:6]"


def test_hosts_that_leave_answer_to_their_end() -> None:
    assert coverage([TRUNK, LOW, dataclasses.replace(HIGH, state=NodeState.DRAINING)], N_LAYERS, NOW_S) == (1,) * 6


def test_a_round_trip_a_layer_against_one_a_hop() -> None:
    """Two nodes of whole layers far away, or a trunk beside whose experts are near: by what was measured."""
    whole = (node("a", "0:3"), node("b", "3:6"))
    near = dataclasses.replace(TRUNK, expert_wait_s=0.001)
    far = dataclasses.replace(TRUNK, expert_wait_s=0.050)
    rtt_s = {whole[0].node_id: 0.04, whole[1].node_id: 0.04, TRUNK.node_id: 0.04}
    assert str(planned(near, LOW, HIGH, *whole, rtt_s=rtt_s)) == "tttttttt[0:6]"
    assert str(planned(far, LOW, HIGH, *whole, rtt_s=rtt_s)) == "aaaaaaaa[0:3] -> bbbbbbbb[3:6]"


def test_layers_across_slow_links_and_experts_inside_fast_ones_in_one_route() -> None:
    here = node("t", trunks="0:3", expert_wait_s=0.001)
    route = planned(here, node("l", experts="0:3 0,1,2,3"), node("w", "3:6"))
    assert str(route) == "tttttttt[0:3] -> wwwwwwww[3:6]"


def test_experts_that_the_trunk_has_itself_cost_no_round_trip() -> None:
    """Of equal nodes the one whose experts are its own wins, though the other's id is smaller."""
    own = node("z", trunks="0:6", experts="0:6 0,1,2,3")
    assert str(planned(TRUNK, own)) == "zzzzzzzz[0:6]"


def test_a_route_is_mended_around_trunks() -> None:
    first, second = node("t", trunks="0:3"), node("u", trunks="3:6")
    spare = node("v", trunks="3:6")
    route = planned(first, second, LOW, HIGH)
    assert str(route) == "tttttttt[0:3] -> uuuuuuuu[3:6]"
    mended = mend_route(route, [first, spare, LOW, HIGH], now_s=NOW_S, exclude=frozenset({second.node_id}))
    assert str(mended) == "tttttttt[0:3] -> vvvvvvvv[3:6]"
