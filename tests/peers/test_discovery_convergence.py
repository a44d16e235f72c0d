"""Nodes find each other, and a client all of them, over real gRPC on loopback: each knows one address to begin with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import pytest

from swarm.client.network import RpcFactsPort
from swarm.discovery import Discovery, DiscoveryConfig, sign_fact
from swarm.facts import Known, NodeFact, NodeState, SignedFact
from swarm.identity import NodeKey, issue
from swarm.rpc import Dialer, RpcConfig, RpcServer
from swarm.terms import Address, Infohash, NodeId, Profile, Span

RELEASE = Infohash("ab" * 20)


@dataclass
class Participant:
    """A node that only talks: its discovery behind a real server; or a client, without one."""

    config: DiscoveryConfig
    key: NodeKey = field(default_factory=NodeKey.generate)
    address: Address | None = None
    state: NodeState = NodeState.SERVING
    seq: int = 1
    n_exchanges: int = 0

    async def start(self, peers: Sequence[Address], *, serve: bool = True) -> None:
        tls = issue(self.key)
        self.dialer = Dialer(tls, RpcConfig.loopback())
        port = RpcFactsPort(self.dialer)
        self.discovery = Discovery(RELEASE, port, self.config, static_peers=peers, own=self.own_fact)
        self.server = RpcServer(tls, RpcConfig.loopback(), node=self)
        if serve:
            self.address = await self.server.start(Address("127.0.0.1", 0))
            self.running = asyncio.create_task(self.discovery.run())

    def own_fact(self) -> SignedFact | None:
        if self.address is None:
            return None
        spans, issued_at_s = (Span(0, 4),), time.time()
        profile = Profile("bf16")
        fact = NodeFact(
            self.key.node_id, RELEASE, self.address, self.seq, issued_at_s, 60.0, self.state, spans, profile, 4
        )
        return sign_fact(self.key, replace(fact, rtts=self.discovery.nearest(16)))

    async def describe(self, caller: NodeId) -> SignedFact:
        raise NotImplementedError

    async def exchange(
        self, release: Infohash, facts: Sequence[SignedFact], known: Known, caller: NodeId, host: str
    ) -> tuple[Sequence[SignedFact], bool]:
        self.n_exchanges += 1
        return await self.discovery.receive(facts, known)

    async def dial_back(self, address: Address, caller: NodeId) -> str:
        raise NotImplementedError

    async def stop(self) -> None:
        if self.address is not None:
            self.running.cancel()
            await asyncio.gather(self.running, return_exceptions=True)
            await self.server.stop()
        await self.dialer.close()


HANGS_S = 30.0
"""Whoever is not there by then, on however busy a machine, will not come."""


async def until(holds: Callable[[], bool], within_s: float) -> float:
    """Seconds until it held. Raises: TimeoutError."""
    began_s = time.monotonic()
    async with asyncio.timeout(within_s):
        while not holds():
            await asyncio.sleep(0.02)
    return time.monotonic() - began_s


@pytest.mark.parametrize("preset", ["loopback", "lan"])
async def test_twenty_nodes_know_each_other_within_five_seconds_and_a_client_within_two(preset: str) -> None:
    """Of computing, all twenty in this process: how long that takes is up to what else the machine does."""
    nodes = [Participant(DiscoveryConfig.for_network(preset)) for _ in range(20)]
    client = Participant(DiscoveryConfig.for_network(preset))
    try:
        await nodes[0].start([])
        first = nodes[0].address
        assert first is not None
        await asyncio.gather(*(node.start([first]) for node in nodes[1:]))
        computed_s = time.process_time()
        await until(lambda: all(len(node.discovery.nodes()) == 20 for node in nodes), HANGS_S)
        assert time.process_time() - computed_s < 5.0

        last = nodes[-1].address
        assert last is not None
        await client.start([last], serve=False)
        computed_s = time.process_time()
        refreshing = asyncio.create_task(client.discovery.refresh())
        await until(lambda: len(client.discovery.nodes()) == 20, HANGS_S)
        assert time.process_time() - computed_s < 2.0
        await refreshing
        assert 0 < min(client.discovery.rtts.rtts_s().values()) < 2.0

        await until(lambda: all(node.discovery.nearest(3) for node in nodes), HANGS_S)
        gone = nodes[5]
        gone.state, gone.seq = NodeState.LEFT, 2
        await gone.discovery.say_goodbye()
        others = [node for node in nodes if node is not gone]
        await until(lambda: all(len(node.discovery.nodes()) == 19 for node in others), HANGS_S)
    finally:
        await asyncio.gather(*(one.stop() for one in (*nodes, client)))


async def test_a_thousand_facts_reach_a_client_within_two_seconds_and_are_not_sent_again() -> None:
    node, client = Participant(DiscoveryConfig()), Participant(replace(DiscoveryConfig(), max_asked_per_round=0))
    try:
        await node.start([])
        node.running.cancel()  # or it would ask, and forget, some of those that it is told of now
        spans, now_s = (Span(0, 4),), time.time()
        for i in range(1000):
            key, address = NodeKey.generate(), Address("127.0.0.1", 1 + i)
            fact = NodeFact(
                key.node_id, RELEASE, address, 1, now_s, 600.0, NodeState.SERVING, spans, Profile("bf16"), 4
            )
            node.discovery.table.add(sign_fact(key, fact))
        assert node.address is not None
        await client.start([node.address], serve=False)
        computed_s = time.process_time()
        async with asyncio.timeout(30):
            await client.discovery.refresh()
        assert len(client.discovery.nodes()) == 1001
        # What takes the time is computing, both sides' in this process: that of a machine that does nothing else.
        assert time.process_time() - computed_s < 2.0
        assert node.n_exchanges <= 3, "no rounds that wait for one another"

        connection = await client.dialer.connect(node.address)
        known = client.discovery.table.known(2000)
        answer = await connection.exchange(RELEASE, (), 5.0, known)
        assert (answer.facts, answer.more) == ((), False)
    finally:
        await asyncio.gather(node.stop(), client.stop())


async def test_a_forged_and_a_replayed_fact_change_nobodys_view() -> None:
    node, victim = Participant(DiscoveryConfig.loopback()), Participant(DiscoveryConfig.loopback())
    liar = NodeKey.generate()
    try:
        await node.start([])
        assert node.address is not None
        await victim.start([node.address])
        await until(lambda: len(node.discovery.nodes()) == 2, 5.0)
        old = victim.own_fact()
        assert old is not None
        victim.seq = 5
        await until(lambda: any(f.seq == 5 for f in node.discovery.others()), 5.0)

        moved = replace(old.fact, address=Address("127.0.0.1", 9), seq=99)
        forged = sign_fact(liar, moved)
        altered = SignedFact(moved, forged.payload, old.signature)
        dialer = Dialer(issue(liar), RpcConfig.loopback())
        async with dialer:
            connection = await dialer.connect(node.address)
            await connection.exchange(RELEASE, (forged, altered, old), 5.0)
        (seen,) = node.discovery.others()
        assert (seen.address, seen.seq) == (victim.address, 5)
    finally:
        await asyncio.gather(node.stop(), victim.stop())
