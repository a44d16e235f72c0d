"""A small world of real servers and dialers on loopback, which ends with nothing left running."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio

from swarm.facts import Hop, Known, NodeFact, NodeState, SignedFact
from swarm.identity import OPEN_AUTHORITY, Authority, NodeKey, issue
from swarm.messages import Failure, Open, Opened, Result, Step
from swarm.rpc import Connection, Dialer, RpcConfig, RpcServer
from swarm.terms import Address, Infohash, NodeId, Profile, SessionId, Span
from swarm.wire import FACT_DOMAIN, encode_fact

RELEASE = Infohash("ab" * 20)
SESSION = SessionId("cd" * 16)
SOMEBODY = NodeId("a" * 52)
ANYWHERE = Address("127.0.0.1", 0)


def signed_fact(key: NodeKey) -> SignedFact:
    fact = NodeFact(
        key.node_id,
        RELEASE,
        Address("127.0.0.1", 1),
        1,
        1.0,
        60.0,
        NodeState.SERVING,
        (Span(0, 2),),
        Profile("bf16"),
        2,
    )
    payload = encode_fact(fact)
    return SignedFact(fact, payload, key.sign(FACT_DOMAIN + payload))


@dataclass
class EchoNode:
    """Describes `key`'s node and sends facts back as they came. raises: what both methods raise instead."""

    key: NodeKey
    raises: Exception | None = None
    delay_s: float = 0.0
    callers: list[NodeId] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    async def describe(self, caller: NodeId, /) -> SignedFact:
        await self._behave(caller)
        return signed_fact(self.key)

    async def exchange(
        self, release: Infohash, facts: Sequence[SignedFact], known: Known, caller: NodeId, host: str, /
    ) -> tuple[Sequence[SignedFact], bool]:
        await self._behave(caller)
        return facts, False

    async def dial_back(self, address: Address, caller: NodeId, /) -> str:
        await self._behave(caller)
        return ""

    async def _behave(self, caller: NodeId) -> None:
        self.callers.append(caller)
        try:
            await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if self.raises is not None:
            raise self.raises


Replies = AsyncIterator[Opened | Failure]


@dataclass
class FunctionStage:
    """A stage made of two functions."""

    running: Callable[[Open, AsyncIterator[Step], NodeId], Replies] | None = None
    resulting: Callable[[SessionId, int, NodeId], AsyncIterator[Result]] | None = None

    def run(self, opening: Open, steps: AsyncIterator[Step], caller: NodeId, /) -> Replies:
        assert self.running is not None
        return self.running(opening, steps, caller)

    def results(self, session_id: SessionId, epoch: int, caller: NodeId, /) -> AsyncIterator[Result]:
        assert self.resulting is not None
        return self.resulting(session_id, epoch, caller)


@dataclass
class World:
    """Makes servers, dialers and connections, and ends them all."""

    config: RpcConfig = field(default_factory=RpcConfig.loopback)
    _servers: list[RpcServer] = field(default_factory=list)
    _dialers: list[Dialer] = field(default_factory=list)

    @staticmethod
    def node(key: NodeKey | None = None, **behaviour: Any) -> EchoNode:
        return EchoNode(key or NodeKey.generate(), **behaviour)

    @staticmethod
    def stage(**functions: Any) -> FunctionStage:
        return FunctionStage(**functions)

    @staticmethod
    def signed_fact(key: NodeKey) -> SignedFact:
        return signed_fact(key)

    @staticmethod
    def opening() -> Open:
        hops = (Hop(SOMEBODY, Address("127.0.0.1", 1), Span(0, 2)),)
        return Open(SESSION, 1, RELEASE, SOMEBODY, hops, 0, Profile("bf16"), 100, 4)

    async def serve(
        self,
        *,
        key: NodeKey | None = None,
        stage: FunctionStage | None = None,
        node: EchoNode | None = None,
        relay: Any = None,
        experts: Any = None,
        authority: Authority = OPEN_AUTHORITY,
        listen: Address = ANYWHERE,
        config: RpcConfig | None = None,
    ) -> tuple[RpcServer, Address]:
        tls = issue(key or NodeKey.generate(), authority)
        server = RpcServer(tls, config or self.config, stage=stage, node=node, experts=experts, relay=relay)
        self._servers.append(server)
        return server, await server.start(listen)

    def dialer(
        self, key: NodeKey | None = None, authority: Authority = OPEN_AUTHORITY, config: RpcConfig | None = None
    ) -> Dialer:
        dialer = Dialer(issue(key or NodeKey.generate(), authority), config or self.config)
        self._dialers.append(dialer)
        return dialer

    async def connect(self, address: Address, config: RpcConfig | None = None) -> Connection:
        return await self.dialer(config=config).connect(address)

    async def end(self) -> None:
        for dialer in self._dialers:
            await dialer.close()
        for server in self._servers:
            await server.stop(0)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Ends with no task left over: neither ours nor gRPC's."""
    before = asyncio.all_tasks()
    errors: list[dict[str, object]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context))
    made = World()
    yield made
    await made.end()
    async with asyncio.timeout(5):
        while left := asyncio.all_tasks() - before - {asyncio.current_task()}:
            await asyncio.wait(left, timeout=0.05)
    assert errors == []


@dataclass(frozen=True)
class Served:
    """A gateway over a three-node swarm of the speaking release. model: its name."""

    gateway: Any
    swarm: Any
    nodes: tuple[Any, ...]
    model: str

    @property
    def url(self) -> str:
        return self.gateway.url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(
    speaking_release: Any, make_local_swarm: Any, open_gateway: Any, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Served]:
    swarm = make_local_swarm(speaking_release, tmp_path_factory.mktemp("served"))
    await swarm.publish()
    nodes = await asyncio.gather(*(swarm.start(span) for span in ("0:1", "1:2", "2:3")))
    try:
        ledger = swarm.work_dir / "usage.sqlite"
        async with open_gateway(swarm, ledger_file=ledger, default_max_tokens=12) as gateway:
            yield Served(gateway, swarm, tuple(nodes), gateway.services.registry.models[0].name)
    finally:
        await swarm.close()
