"""A node that finds out how others reach it, among real servers on loopback."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from node.reach import ReachKeeper, keeper
from node.server import DialBack, RelayConfig, RelayHandler
from swarm.client.network import RpcFactsPort
from swarm.client.reach import Reach, Verdict
from swarm.discovery import Discovery, DiscoveryConfig, sign_fact
from swarm.facts import NodeFact, NodeState, Reachability, SignedFact
from swarm.identity import NodeKey
from swarm.terms import Address, Infohash, NodeId, Profile

RELEASE = Infohash("ab" * 20)
N_PLACES = 2


class Neighbour:
    """Another node: it dials back, and is a relay."""

    def __init__(self, dialer: Any) -> None:
        self.key = NodeKey.generate()
        self.relay = RelayHandler(RelayConfig(n_places=N_PLACES))
        self.address = Address("127.0.0.1", 1)
        self._dial_back = DialBack(dialer, self.fact)

    def fact(self) -> SignedFact:
        now_s, places = time.time(), self.relay.n_free_places
        fact = NodeFact(
            self.key.node_id, RELEASE, self.address, 1, now_s, 60.0, NodeState.SERVING, (), Profile("bf16"), 4,
            relay_places=places,
        )  # fmt: skip
        return sign_fact(self.key, fact)

    async def dial_back(self, address: Address, caller: NodeId, /) -> str:
        return await self._dial_back.dial(address, caller)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.01)


async def test_a_place_at_a_relay_is_kept_for_as_long_as_nobody_can_dial_and_no_longer(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "LOOK_AGAIN_S", 0.05)
    monkeypatch.setattr(keeper, "PAUSES_S", dict.fromkeys(Reachability, 0.2))
    me = NodeKey.generate()
    dialer = world.dialer(me)
    discovery = Discovery(RELEASE, RpcFactsPort(dialer), DiscoveryConfig.loopback())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        mine = Address("127.0.0.1", taken.getsockname()[1])
    served, _ = await world.serve(key=me)
    told: list[tuple[Reach, Verdict]] = []
    keeping = ReachKeeper(
        me.node_id, dialer, discovery, mine, lambda reach, verdict: told.append((reach, verdict)),
        back_door=served.back_door, network="loopback",
    )  # fmt: skip
    running = asyncio.create_task(keeping.run())
    try:
        neighbour = Neighbour(world.dialer())
        _, neighbour.address = await world.serve(key=neighbour.key, node=neighbour, relay=neighbour.relay)
        discovery.table.add(neighbour.fact())
        discovery.table.confirm(neighbour.key.node_id)
        await until(lambda: bool(told) and told[-1][0].relay == neighbour.key.node_id)
        reach, verdict = told[-1]
        assert (reach.address.relay, reach.address.target) == (neighbour.address, me.node_id)
        assert reach.reachability is Reachability.UNREACHABLE and str(mine) in verdict.problem
        assert neighbour.relay.n_free_places == N_PLACES - 1

        await world.serve(key=me, listen=mine)
        await until(lambda: told[-1][0] == Reach(mine, Reachability.REACHABLE))
        await until(lambda: neighbour.relay.n_free_places == N_PLACES)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_check_that_fails_is_not_the_last(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Address("127.0.0.1", 9)
    checks = iter([ValueError("whatever a stranger set off"), Verdict(Reachability.REACHABLE, mine.host)])

    async def be_dialled(*_: Any) -> Verdict:
        outcome = next(checks)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(keeper, "LOOK_AGAIN_S", 0.01)
    monkeypatch.setattr(keeper, "be_dialled", be_dialled)
    me, told, dialer = NodeKey.generate(), asyncio.Event(), world.dialer()
    served, _ = await world.serve(key=me)
    keeping = ReachKeeper(
        me.node_id, dialer, Discovery(RELEASE, RpcFactsPort(dialer), DiscoveryConfig.loopback()), mine,
        lambda *_: told.set(), back_door=served.back_door, network="loopback",
    )  # fmt: skip
    running = asyncio.create_task(keeping.run())
    try:
        async with asyncio.timeout(10):
            await told.wait()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
