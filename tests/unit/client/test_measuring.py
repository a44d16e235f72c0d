"""A client measures the nodes that matter before it chooses among them, and does not wait for those who are silent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest

from swarm.client import routes
from swarm.client.routes import RouteFinder
from swarm.discovery import Discovery, DiscoveryConfig, sign_fact
from swarm.errors import StageFull
from swarm.facts import Answer, Known, NodeFact, NodeState, SignedFact
from swarm.identity import NodeKey
from swarm.terms import Address, Infohash, NodeId, Profile, Span

RELEASE = Infohash("ab" * 20)
BF16 = Profile("bf16")


class Port:
    """Nodes that answer with nothing after trips_s, as they say; None: never."""

    def __init__(self) -> None:
        self.trips_s: dict[Address, tuple[NodeId, float | None]] = {}
        self.asked: list[tuple[Address, Known]] = []

    async def exchange(
        self, address: Address, release: Infohash, facts: Sequence[SignedFact], known: Known, timeout_s: float
    ) -> Answer:
        self.asked.append((address, known))
        node_id, rtt_s = self.trips_s[address]
        if rtt_s is None:
            await asyncio.Event().wait()
            raise AssertionError
        return Answer(node_id, [], False, rtt_s)


class Swarm:
    """A client's view of nodes that serve all four layers."""

    def __init__(self) -> None:
        self.port = Port()
        self.discovery = Discovery(RELEASE, self.port, DiscoveryConfig())
        self.finder = RouteFinder(self.discovery, 4, 0.0)

    def add(self, layer_time_s: float, rtt_s: float | None, profile: Profile = BF16) -> NodeId:
        key, address = NodeKey.generate(), Address("198.51.100.1", 1 + len(self.port.trips_s))
        fact = NodeFact(
            node_id=key.node_id, release=RELEASE, address=address, seq=1, issued_at_s=time.time(), ttl_s=60.0,
            state=NodeState.SERVING, spans=(Span(0, 4),), profile=profile, n_layers=4, free_sessions=4,
            layer_time_s=layer_time_s,
        )  # fmt: skip
        self.discovery.table.add(sign_fact(key, fact))
        self.port.trips_s[address] = key.node_id, rtt_s
        return key.node_id

    async def choose(self, profile: Profile | None = None) -> NodeId:
        return (await self.finder.find(profile)).hops[0].node_id


async def test_the_best_by_its_word_is_left_when_it_turns_out_to_be_far() -> None:
    swarm = Swarm()
    swarm.add(0.001, 0.2)
    near = swarm.add(0.002, 0.001)
    assert await swarm.choose() == near
    assert len(swarm.port.asked) == 2, "both were asked"
    assert not any(known.lacks(fact) for _, known in swarm.port.asked for fact in swarm.discovery.nodes())
    assert await swarm.choose() == near and len(swarm.port.asked) == 2, "and not again at once"


async def test_only_those_that_the_route_may_take_are_asked() -> None:
    """A quick node of another profile, and one that just failed, would be met for nothing."""
    swarm = Swarm()
    failed, _, taken = swarm.add(0.001, 0.001), swarm.add(0.001, 0.001, Profile("fp32")), swarm.add(0.002, 0.001)
    swarm.finder.avoid([failed], StageFull("full", retry_after_s=5.0))
    assert await swarm.choose(BF16) == taken
    assert set(swarm.discovery.rtts.rtts_s()) == {taken}


async def test_a_large_swarm_is_not_asked_from_end_to_end() -> None:
    swarm = Swarm()
    for n in range(40):
        swarm.add(0.001 + 0.00001 * n, 0.01)
    await swarm.choose()
    assert 0 < len(swarm.port.asked) <= routes.N_MEASURED


async def test_who_is_silent_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "MEASURE_S", 0.01)
    swarm = Swarm()
    silent, other = swarm.add(0.001, None), swarm.add(0.002, 0.001)
    async with asyncio.timeout(20):
        assert await swarm.choose() in (silent, other)
    assert len(swarm.port.asked) == 2


async def test_who_is_silent_keeps_nobody_else_from_being_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few facts of quick nodes that are not there are made up for nothing."""
    monkeypatch.setattr(routes, "MEASURE_S", 0.01)
    monkeypatch.setattr(routes, "MEASURE_INTERVAL_S", 0.0)
    swarm = Swarm()
    for _ in range(6):
        swarm.add(0.0001, None)
    there = swarm.add(0.002, 0.001)
    async with asyncio.timeout(20):
        for _ in range(2):
            await swarm.choose()
    assert swarm.discovery.rtts.rtts_s() == {there: 0.001}
