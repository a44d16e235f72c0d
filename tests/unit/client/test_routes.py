"""RouteFinder over a discovery that answers from memory and a clock that the test moves: whom it takes, whom it
leaves out and for how long, and what it says when there is no route.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from swarm.client import experience, routes
from swarm.client.routes import AVOID_S, SOLE_HOST_PAUSE_S, SPARELESS_S, RouteFinder
from swarm.discovery import RttBook
from swarm.errors import LayersUncovered, NodeUnreachable, NoNodesFound, SessionLost, StageFull
from swarm.facts import NodeFact, NodeState, Route
from swarm.routing import plan_route
from swarm.terms import Address, Infohash, NodeId, Profile, Span

N_LAYERS = 4
BF16, FP32 = Profile("bf16"), Profile("fp32")
STEP_S = 0.25


@dataclasses.dataclass
class Clock:
    """Stands in for the time module."""

    now_s: float = 1_000_000.0

    def monotonic(self) -> float:
        return self.now_s

    def time(self) -> float:
        return self.now_s


@dataclasses.dataclass
class FakeDiscovery:
    """The nodes that it knows; each refresh takes STEP_S of the clock, and may bring more."""

    clock: Clock
    known: list[NodeFact] = dataclasses.field(default_factory=list)
    on_refresh: Callable[[int], None] = lambda n_refreshes: None
    n_refreshes: int = 0
    dead: list[NodeId] = dataclasses.field(default_factory=list)
    rtts: RttBook = dataclasses.field(default_factory=RttBook)

    @property
    def table(self) -> FakeDiscovery:
        return self

    def mark_dead(self, node_id: NodeId) -> None:
        self.dead.append(node_id)
        self.known = [fact for fact in self.known if fact.node_id != node_id]

    def nodes(self) -> tuple[NodeFact, ...]:
        return tuple(dataclasses.replace(fact, issued_at_s=self.clock.now_s) for fact in self.known)

    async def refresh(self) -> None:
        self.n_refreshes += 1
        self.clock.now_s += STEP_S
        self.on_refresh(self.n_refreshes)

    async def measure(self, nodes: Sequence[NodeFact]) -> None:
        """Nobody answers."""

    def describe_attempts(self) -> str:
        return "127.0.0.1:9: refused"


@pytest.fixture
async def discovery(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeDiscovery]:
    clock = Clock()
    monkeypatch.setattr(routes, "time", clock)
    monkeypatch.setattr(experience, "time", clock)
    monkeypatch.setattr(routes, "RETRY_S", 0.0)
    async with asyncio.timeout(30.0):
        yield FakeDiscovery(clock)


def finder(discovery: Any, wait_s: float = 0.0) -> RouteFinder:
    return RouteFinder(discovery, N_LAYERS, wait_s)


def fact(name: str, span: str = "0:4", **changes: Any) -> NodeFact:
    """A node that serves; each letter of the alphabet is half as fast as the one before it."""
    base = NodeFact(
        node_id=NodeId(name.ljust(52, "a")),
        release=Infohash("ab" * 20),
        address=Address("127.0.0.1", 7000),
        seq=1,
        issued_at_s=0.0,
        ttl_s=60.0,
        state=NodeState.SERVING,
        spans=(Span.parse(span),),
        profile=BF16,
        n_layers=N_LAYERS,
        free_sessions=4,
        layer_time_s=0.001 * 2.0 ** (ord(name[0]) - ord("a")),
    )
    return dataclasses.replace(base, **changes)


def names(route: Route) -> list[str]:
    return [hop.node_id[0] for hop in route.hops]


async def test_what_is_known_is_used_without_asking_anybody(discovery: FakeDiscovery) -> None:
    discovery.known = [fact("b", "0:2"), fact("c", "2:4")]
    assert names(await finder(discovery, 10.0).find(None)) == ["b", "c"]
    assert discovery.n_refreshes == 0


async def test_it_waits_for_a_node_that_appears(discovery: FakeDiscovery) -> None:
    discovery.known = [fact("b", "0:2")]

    def third_time(n_refreshes: int) -> None:
        if n_refreshes == 3:
            discovery.known.append(fact("c", "2:4"))

    discovery.on_refresh = third_time
    assert names(await finder(discovery, 10.0).find(None)) == ["b", "c"]
    assert discovery.n_refreshes == 3


async def test_a_session_stays_within_its_profile(discovery: FakeDiscovery) -> None:
    discovery.known = [fact("b"), fact("c", profile=FP32)]
    assert names(await finder(discovery).find(BF16)) == ["b"]
    assert names(await finder(discovery).find(FP32)) == ["c"]


async def test_a_node_that_failed_is_left_out_while_another_can_do_its_work(discovery: FakeDiscovery) -> None:
    discovery.known = [fact("b"), fact("c")]
    routing = finder(discovery)
    assert names(await routing.find(None)) == ["b"]
    routing.avoid([fact("b").node_id], SessionLost("it forgot"))
    assert names(await routing.find(None)) == ["c"]
    discovery.clock.now_s += AVOID_S - 0.1
    assert names(await routing.find(None)) == ["c"], "beyond the pause that a sole host gets"
    discovery.clock.now_s += 0.2
    assert names(await routing.find(None)) == ["b"]
    assert discovery.n_refreshes == 0


async def test_a_sole_host_gets_another_chance_after_a_pause(discovery: FakeDiscovery) -> None:
    discovery.known = [fact("b", "0:2"), fact("c", "2:4")]
    routing = finder(discovery, 10.0)
    began_s = discovery.clock.now_s
    routing.avoid([fact("c").node_id], SessionLost("it forgot"))
    assert names(await routing.find(None)) == ["b", "c"]
    assert discovery.clock.now_s == began_s + SOLE_HOST_PAUSE_S


async def test_of_two_that_failed_the_sole_host_is_tried_and_the_other_not(discovery: FakeDiscovery) -> None:
    discovery.known = [fact("b"), fact("c", "0:2")]
    routing = finder(discovery, 10.0)
    for name in "bc":
        routing.avoid([fact(name).node_id], SessionLost("it forgot"))
    discovery.clock.now_s += SOLE_HOST_PAUSE_S / 2
    routing.avoid([fact("c").node_id], SessionLost("and again"))
    discovery.clock.now_s += SOLE_HOST_PAUSE_S / 2
    assert names(await routing.find(None)) == ["b"]
    assert discovery.n_refreshes == 0


async def test_no_chance_is_left_when_the_patience_is_shorter_than_the_pause(discovery: FakeDiscovery) -> None:
    discovery.known = [fact("b")]
    routing = finder(discovery, SOLE_HOST_PAUSE_S / 2)
    routing.avoid([fact("b").node_id], SessionLost("it forgot"))
    with pytest.raises(LayersUncovered, match=r"left out: node baaaaaaa: it forgot") as caught:
        await routing.find(None)
    assert caught.value.layers == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("retry_after_s", "pause_s"), [(0.5, 0.5), (3.0, 3.0), (1e9, AVOID_S)], ids=["sooner", "later", "absurdly late"]
)
async def test_a_full_node_is_asked_again_when_it_said(
    discovery: FakeDiscovery, retry_after_s: float, pause_s: float
) -> None:
    discovery.known = [fact("b")]
    began_s = discovery.clock.now_s
    routing = finder(discovery, 100.0)
    routing.avoid([fact("b").node_id], StageFull("all places are taken", retry_after_s))
    assert names(await routing.find(None)) == ["b"]
    assert discovery.clock.now_s == began_s + pause_s


async def test_a_full_node_is_left_for_another_that_is_not(discovery: FakeDiscovery) -> None:
    discovery.known = [fact("b"), fact("c")]
    routing = finder(discovery)
    routing.avoid([fact("b").node_id], StageFull("all places are taken", 2.0))
    assert names(await routing.find(None)) == ["c"]
    discovery.clock.now_s += 2.1
    assert names(await routing.find(None)) == ["b"]


async def test_all_that_may_be_to_blame_are_left_out(discovery: FakeDiscovery) -> None:
    discovery.known = [fact("b", "0:2"), fact("c", "2:4"), fact("d")]
    routing = finder(discovery)
    assert names(await routing.find(None)) == ["b", "c"]
    routing.avoid([fact("b").node_id, fact("c").node_id], NodeUnreachable("the connection between them broke"))
    assert names(await routing.find(None)) == ["d"]


async def test_what_hops_say_of_each_other_never_touches_the_table(discovery: FakeDiscovery) -> None:
    """A hop may lie about the next one: the next one's place in the table is discovery's to judge."""
    discovery.known = [fact("b"), fact("c")]
    routing = finder(discovery)
    for error in (NodeUnreachable("gone"), SessionLost("it forgot"), StageFull("full", 1e9)):
        routing.avoid([fact("b").node_id], error)
        assert names(await routing.find(None)) == ["c"]
    assert not discovery.dead
    discovery.clock.now_s += AVOID_S + 0.1
    assert names(await routing.find(None)) == ["b"]


async def test_nodes_of_another_depth_are_of_another_model(discovery: FakeDiscovery) -> None:
    discovery.known = [fact("b", n_layers=N_LAYERS + 1), fact("c")]
    assert names(await finder(discovery).find(None)) == ["c"]


async def test_nobody_at_all(discovery: FakeDiscovery) -> None:
    with pytest.raises(NoNodesFound) as caught:
        await finder(discovery, 2.0).find(None)
    assert caught.value.message == (
        "no node of this release was found within 2 s (tried 127.0.0.1:9: refused); start one with `swarm node start "
        "MAGNET`, name one with --peer HOST:PORT, or use a link that says whom to ask first, as `swarm release seed` "
        "prints it"
    )
    assert discovery.n_refreshes == 2.0 / STEP_S, "it asked for as long as it had patience"


async def test_nobody_at_all_ends_with_the_link_s_hint(discovery: FakeDiscovery) -> None:
    with pytest.raises(NoNodesFound, match=r"as `swarm release seed` prints it; a hint$"):
        await RouteFinder(discovery, N_LAYERS, 0.0, hint="; a hint").find(None)  # type: ignore[arg-type]


async def test_nobody_but_nodes_that_join(discovery: FakeDiscovery) -> None:
    discovery.known = [fact(name, state=NodeState.JOINING, spans=()) for name in "bc"]
    with pytest.raises(NoNodesFound, match=r"all 2 known nodes are still joining within 0 s \(tried 127"):
        await finder(discovery).find(None)


async def test_layers_that_nobody_hosts(discovery: FakeDiscovery) -> None:
    discovery.known = [fact("b", "1:2")]
    with pytest.raises(LayersUncovered, match="swarm node start MAGNET --layers 0:1 --layers 2:4") as caught:
        await finder(discovery, 1.0).find(None)
    assert caught.value.layers == (0, 2, 3)
    assert "0:1, 2:4" in caught.value.message
    assert "left out" not in caught.value.message, "nobody failed"


async def test_the_only_node_died_is_no_swarm_that_was_never_found(discovery: FakeDiscovery) -> None:
    discovery.known = [fact("b")]
    routing = finder(discovery)
    routing.avoid([fact("b").node_id], NodeUnreachable("the connection broke"))
    with pytest.raises(LayersUncovered, match=r"left out: node baaaaaaa: the connection broke"):
        await routing.find(None)


async def test_a_refresh_that_never_ends_does_not_outlast_the_patience() -> None:
    class Silent(FakeDiscovery):
        async def refresh(self) -> None:
            await asyncio.Event().wait()

    async with asyncio.timeout(30.0):
        with pytest.raises(NoNodesFound, match=r"within 0\.1 s"):
            await finder(Silent(Clock()), 0.1).find(None)


async def test_a_node_that_lies_about_its_speed_is_left_after_one_slow_session(discovery: FakeDiscovery) -> None:
    discovery.known = [fact("b", "0:2"), fact("l", "2:4", layer_time_s=1e-9), fact("c", "2:4")]
    search = finder(discovery)
    route = await search.find(None)
    assert names(route) == ["b", "l"]
    search.learn(route, 4.0)
    assert names(await search.find(None)) == ["b", "c"]
    discovery.clock.now_s += experience.REMEMBERED_S + 1
    assert names(await search.find(None)) == ["b", "l"], "it may be better now, and is tried again"


async def test_who_was_on_a_slow_route_is_believed_again_on_one_that_holds_its_word(discovery: FakeDiscovery) -> None:
    discovery.known = [fact("b", "0:2"), fact("l", "2:4", layer_time_s=1e-9), fact("c", "2:4")]
    search = finder(discovery)
    slow = await search.find(None)
    search.learn(slow, 4.0)
    sound = await search.find(None)
    search.learn(sound, 0.02)
    discovery.known.append(fact("d", "0:2"))
    assert names(await search.find(None)) == ["b", "c"], "b is preferred to the slower d"


async def test_the_last_route_is_kept_until_another_is_clearly_better(discovery: FakeDiscovery) -> None:
    discovery.known = [fact("d", "0:4", layer_time_s=0.010), fact("e", "0:4", layer_time_s=0.011)]
    search = finder(discovery)
    assert names(await search.find(None)) == ["d"]
    discovery.known = [fact("d", "0:4", layer_time_s=0.011), fact("e", "0:4", layer_time_s=0.010)]
    assert names(await search.find(None)) == ["d"]
    discovery.known = [fact("d", "0:4", layer_time_s=0.020), fact("e", "0:4", layer_time_s=0.010)]
    assert names(await search.find(None)) == ["e"]


async def test_a_link_that_became_slow_is_left(discovery: FakeDiscovery) -> None:
    discovery.known = [fact("d", "0:4", layer_time_s=0.010), fact("e", "0:4", layer_time_s=0.010)]
    near, far = (node.node_id for node in discovery.known)
    search = finder(discovery)
    for rtt_s, expected in ((0.001, "d"), (0.3, "e")):
        for _ in range(3):
            discovery.rtts.note(near, rtt_s)
            discovery.rtts.note(far, 0.02)
        assert names(await search.find(None)) == [expected]


@pytest.mark.parametrize(
    "change", [{"free_sessions": 0}, {"state": NodeState.DRAINING}, {"address": Address("127.0.0.1", 7777)}]
)
async def test_the_last_route_is_not_kept_over_a_node_that_takes_no_session_there(
    discovery: FakeDiscovery, change: dict[str, Any]
) -> None:
    discovery.known = [fact("b", "0:4", layer_time_s=0.010), fact("c", "0:4", layer_time_s=0.0101)]
    search = finder(discovery)
    assert names(await search.find(None)) == ["b"]
    discovery.known[0] = dataclasses.replace(discovery.known[0], **change)
    route = await search.find(None)
    assert all(hop.address == Address("127.0.0.1", 7000) for hop in route.hops if hop.node_id[0] == "c")
    assert names(route) == (["b"] if "address" in change else ["c"])
    assert route.hops[0].address == discovery.known[names(route) == ["c"]].address


async def test_for_batches_the_route_leads_over_more_nodes_and_equals_are_shared_among_clients(
    discovery: FakeDiscovery,
) -> None:
    discovery.known = [fact(name, "0:4", layer_time_s=0.01) for name in "abcd"]
    wide = RouteFinder(discovery, N_LAYERS, 0.0, "client", for_batches=True)  # type: ignore[arg-type]
    assert [len(hop.span) for hop in (await wide.find(BF16)).hops] == [1, 1, 1, 1]
    quick = [RouteFinder(discovery, N_LAYERS, 0.0, f"client {n}") for n in range(20)]  # type: ignore[arg-type]
    routes_taken = [await one.find(BF16) for one in quick]
    assert {len(route.hops) for route in routes_taken} == {1}
    assert len({route.hops[0].node_id for route in routes_taken}) > 2
    assert [await one.find(BF16) for one in quick] == routes_taken


async def test_a_spare_is_one_of_this_model(discovery: FakeDiscovery) -> None:
    discovery.known = [fact("b", "0:2"), fact("c", "2:4")]
    found = finder(discovery)
    route = await found.find(None)
    discovery.known.append(fact("d", "2:4", n_layers=8))
    assert not found.could_spare(route.hops[1].node_id, route)


async def test_where_there_was_no_spare_it_is_not_looked_for_again_at_once(
    discovery: FakeDiscovery, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_looks = 0
    mend_route = experience.mend_route

    def counted(*arguments: Any, **named: Any) -> Route:
        nonlocal n_looks
        n_looks += 1
        return mend_route(*arguments, **named)

    monkeypatch.setattr(experience, "mend_route", counted)
    discovery.known = [fact("b", "0:2"), fact("c", "2:4")]
    found = finder(discovery)
    route = await found.find(None)
    slow = route.hops[1].node_id
    assert not any(found.could_spare(slow, route) for _ in range(5))
    assert n_looks == 1
    discovery.known.append(fact("d", "2:4"))
    discovery.clock.now_s += SPARELESS_S
    assert found.could_spare(slow, route)
    assert n_looks == 2


async def test_a_rush_of_requests_is_planned_once_and_what_changes_is_heeded_at_once(
    discovery: FakeDiscovery, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_plans = 0

    def counting(*arguments: Any, **named: Any) -> Route:
        nonlocal n_plans
        n_plans += 1
        return plan_route(*arguments, **named)

    monkeypatch.setattr(experience, "plan_route", counting)
    discovery.known = [fact("b"), fact("c")]
    search = finder(discovery)
    for _ in range(32):
        assert names(await search.find(None)) == ["b"]
    assert n_plans == 1
    search.learn(await search.find(None), 4.0)  # disproves what b states
    assert names(await search.find(None)) == ["c"]
    discovery.known = [fact("b"), fact("c"), fact("a")]
    assert names(await search.find(None)) == ["a"]
    search.avoid([fact("a").node_id], SessionLost("it forgot"))
    assert names(await search.find(None)) == ["c"]
    assert n_plans == 4
    discovery.clock.now_s += experience.PLANNED_S
    assert names(await search.find(None)) == ["c"] and n_plans == 5
