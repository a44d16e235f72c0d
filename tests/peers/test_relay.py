"""A relay joins two real nodes: TLS goes from end to end, what it gives is bounded, and ends are seen on both sides."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from node.server import RelayConfig, RelayHandler
from node.server.relay import QUEUED_CHUNKS
from swarm.errors import NodeUnreachable, StageFull, SwarmError, Unauthenticated
from swarm.identity import NodeKey
from swarm.rpc import Dialer, RpcConfig, RpcServer, let_in
from swarm.terms import Address, Infohash, NodeId

WAIT_S = 5.0
RELEASE = Infohash("ab" * 20)


@dataclass
class Relayed:
    """A relay, and a node that is served through it. tapped: what the relay carried, both ways."""

    handler: RelayHandler
    server: RpcServer
    relay: Address
    key: NodeKey
    own_port: Address
    dialer: Dialer
    tapped: list[bytes]
    keeping: asyncio.Task[None] | None = None
    tunnels: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def address(self) -> Address:
        return Address(self.relay.host, self.relay.port, self.key.node_id)

    async def keep_place(self) -> None:
        placed = asyncio.Event()
        connection = await self.dialer.connect(self.relay)

        async def keep() -> None:
            async with contextlib.aclosing(connection.reserve()) as offered:
                async for tunnel in offered:
                    if tunnel:
                        self.tunnels.add(asyncio.create_task(let_in(await connection.accept(tunnel), self.own_port)))
                    placed.set()

        self.keeping = asyncio.create_task(keep())
        waiting = asyncio.create_task(placed.wait())
        async with asyncio.timeout(WAIT_S):
            await asyncio.wait((waiting, self.keeping), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()

    async def leave(self) -> None:
        for task in (self.keeping, *self.tunnels):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)


class TappedRelay(RelayHandler):
    """Keeps what it carries, as a curious relay would."""

    def __init__(self, config: RelayConfig, tapped: list[bytes]) -> None:
        super().__init__(config)
        self._tapped = tapped

    async def _feed(self, data: AsyncIterator[bytes], there: asyncio.Queue[bytes | None]) -> None:
        async def copied() -> AsyncIterator[bytes]:
            async for chunk in data:
                self._tapped.append(chunk)
                yield chunk

        await super()._feed(copied(), there)


async def start(world: Any, config: RelayConfig | None = None) -> Relayed:
    tapped: list[bytes] = []
    handler = TappedRelay(config or RelayConfig(), tapped)
    server, relay = await world.serve(relay=handler)
    key = NodeKey.generate()
    own, _ = await world.serve(key=key, node=world.node(key))
    made = Relayed(handler, server, relay, key, await own.back_door(), world.dialer(key), tapped)
    await made.keep_place()
    return made


@pytest.fixture
async def relayed(world: Any) -> AsyncIterator[Relayed]:
    made = await start(world)
    yield made
    await made.leave()


async def test_a_node_that_nobody_dials_answers_through_a_relay_that_reads_nothing(
    relayed: Relayed, world: Any
) -> None:
    fact = world.signed_fact(NodeKey.generate())
    dialer = world.dialer()
    connection = await dialer.connect(relayed.address)
    assert connection.node_id == relayed.key.node_id, "the proof is the target's, and not the relay's"
    answer = await connection.exchange(RELEASE, [fact] * 500, WAIT_S)
    assert answer.facts == (fact,) * 500
    carried = b"".join(relayed.tapped)
    assert len(carried) > 2 * 500 * len(fact.payload)
    assert fact.payload not in carried and fact.signature not in carried
    assert await dialer.connect(relayed.address, relayed.key.node_id) is connection
    assert connection._config == RpcConfig.loopback().through_relay(), "patient with the relay's other bytes"


async def test_a_relay_that_joins_to_another_node_is_found_out(relayed: Relayed, world: Any) -> None:
    impostor = NodeKey.generate()
    _, relayed.own_port = await world.serve(key=impostor, node=world.node(impostor))
    with pytest.raises(Unauthenticated, match="changed hands"):
        await world.dialer().connect(relayed.address)


async def test_who_keeps_no_place_is_not_found(relayed: Relayed, world: Any) -> None:
    stranger = Address(relayed.relay.host, relayed.relay.port, NodeKey.generate().node_id)
    with pytest.raises(NodeUnreachable, match="keeps no place"):
        await world.dialer().connect(stranger)
    await relayed.leave()
    async with asyncio.timeout(WAIT_S):
        while relayed.handler.n_free_places < RelayConfig().n_places:
            await asyncio.sleep(0.01)
    with pytest.raises(NodeUnreachable, match="keeps no place"):
        await world.dialer().connect(relayed.address)


async def test_a_lost_relay_ends_the_calls_through_it(relayed: Relayed, world: Any) -> None:
    dialer = world.dialer()
    connection = await dialer.connect(relayed.address)
    await relayed.server.stop()
    with pytest.raises(SwarmError):
        await connection.exchange(RELEASE, [], WAIT_S)
    with pytest.raises(NodeUnreachable):
        await dialer.connect(relayed.address)
    assert relayed.keeping is not None
    async with asyncio.timeout(WAIT_S):
        await asyncio.wait((relayed.keeping,))


async def test_a_relay_that_is_about_to_stop_gives_places_up_and_keeps_what_is_joined(
    relayed: Relayed, world: Any
) -> None:
    connection = await world.dialer().connect(relayed.address)
    relayed.handler.close()
    assert relayed.keeping is not None
    async with asyncio.timeout(WAIT_S):
        await asyncio.wait((relayed.keeping,))
    assert relayed.handler.n_free_places == 0
    assert (await connection.exchange(RELEASE, [], WAIT_S)).facts == ()
    await relayed.keep_place()
    with pytest.raises(StageFull):
        await relayed.keeping
    with pytest.raises(NodeUnreachable):
        await world.dialer().connect(relayed.address)


async def test_who_passes_nothing_on_is_no_relay(world: Any) -> None:
    _, address = await world.serve(relay=RelayHandler(RelayConfig(rate=0)))
    connection = await world.dialer().connect(address)
    with pytest.raises(StageFull):
        await anext(connection.reserve())


async def test_a_node_that_comes_back_has_its_place_again(relayed: Relayed, world: Any) -> None:
    """Its old connection may look alive for seconds after its machine has changed networks."""
    old, relayed.keeping = relayed.keeping, None
    relayed.dialer = world.dialer(relayed.key)
    await relayed.keep_place()
    connection = await world.dialer().connect(relayed.address)
    assert (await connection.exchange(RELEASE, [], WAIT_S)).facts == ()
    assert old is not None
    async with asyncio.timeout(WAIT_S):
        await asyncio.wait((old,))


async def test_places_and_tunnels_are_bounded_and_one_caller_cannot_take_them_all(world: Any) -> None:
    relayed = await start(world, RelayConfig(n_places=1, n_tunnels=4, n_tunnels_per_caller=2))
    try:
        other = await world.dialer().connect(relayed.relay)
        with pytest.raises(StageFull):
            async with contextlib.aclosing(other.reserve()) as offered:
                await anext(offered)
        greedy = await world.dialer().connect(relayed.relay)
        held = [await greedy.tunnel_to(relayed.key.node_id) for _ in range(2)]
        third = await greedy.tunnel_to(relayed.key.node_id)
        with pytest.raises(StageFull):
            await third.receive()
        connection = await world.dialer().connect(relayed.address)
        assert connection.node_id == relayed.key.node_id
        for tunnel in held:
            tunnel.close()
    finally:
        await relayed.leave()


async def test_a_tunnel_is_accepted_by_its_target_alone(relayed: Relayed, world: Any) -> None:
    thief = await world.dialer().connect(relayed.relay)
    tunnel = await thief.accept(bytes(16))
    with pytest.raises(NodeUnreachable, match="no such tunnel"):
        await tunnel.receive()


async def test_what_a_relay_carries_is_held_to_its_rate(world: Any) -> None:
    rate = 400_000
    relayed = await start(world, RelayConfig(rate=rate))
    try:
        connection = await world.dialer().connect(relayed.address)
        fact = world.signed_fact(NodeKey.generate())
        before = sum(map(len, relayed.tapped))
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        for _ in range(3):
            await connection.exchange(RELEASE, [fact] * 500, 10.0)
        took_s = loop.time() - began_s
        assert sum(map(len, relayed.tapped)) - before <= rate * (took_s + 1.0)
        assert took_s > 0.5
    finally:
        await relayed.leave()


async def test_a_relay_that_is_slower_than_what_is_sent_ends_no_call(world: Any) -> None:
    """Pings of the two ends wait behind their data, for longer than a direct connection would be given."""
    relayed = await start(world, RelayConfig(rate=120_000))
    try:
        connection = await world.dialer().connect(relayed.address)
        fact = world.signed_fact(NodeKey.generate())
        began_s = asyncio.get_running_loop().time()
        answer = await connection.exchange(RELEASE, [fact] * 1000, 60.0)
        assert len(answer.facts) == 1000
        assert asyncio.get_running_loop().time() - began_s > RpcConfig.loopback().ping_timeout_s + 1.0
    finally:
        await relayed.leave()


async def silence() -> AsyncIterator[bytes]:
    await asyncio.Event().wait()
    yield b""


async def test_a_target_that_ends_without_reading_ends_the_callers_side_too() -> None:
    relay = RelayHandler(RelayConfig())
    target, caller = NodeKey.generate().node_id, NodeKey.generate().node_id
    flooding = asyncio.Event()

    async def flood() -> AsyncIterator[bytes]:
        for n in range(100):
            if n == QUEUED_CHUNKS + 1:  # all are queued, and one more is about to wait
                flooding.set()
            yield bytes(8)

    async def call() -> list[bytes]:
        return [chunk async for chunk in relay.connect(target, flood(), caller, "")]

    async with asyncio.timeout(WAIT_S), contextlib.aclosing(relay.reserve(target, "")) as place:
        assert await anext(place) == b""
        calling = asyncio.create_task(call())
        accepted = relay.accept(await anext(place), silence(), target)
        reading = asyncio.ensure_future(anext(accepted))
        assert await reading == bytes(8)
        await flooding.wait()
        await asyncio.sleep(0)
        await accepted.aclose()
        assert await calling == []


async def test_a_node_that_never_comes_for_its_tunnels_is_told_of_so_many_only() -> None:
    relay = RelayHandler(RelayConfig(n_tunnels=2))
    target = NodeKey.generate().node_id
    async with contextlib.aclosing(relay.reserve(target, "")) as place:
        assert await anext(place) == b""
        for n in range(3):
            async with contextlib.aclosing(relay.connect(target, silence(), NodeKey.generate().node_id, "")) as chunks:
                calling = asyncio.ensure_future(anext(chunks))
                await asyncio.sleep(0)
                if n == 2:
                    with pytest.raises(StageFull, match="does not come"):
                        await calling
                else:
                    calling.cancel()
                    await asyncio.gather(calling, return_exceptions=True)
        relay.close()
        assert len([name async for name in place]) == 1, "the end took the place of a name"


async def test_new_ids_bring_one_host_no_more_places_and_tunnels() -> None:
    relay = RelayHandler(RelayConfig(n_places=4, n_places_per_host=2, n_tunnels_per_host=1))
    first, second, third = (NodeKey.generate().node_id for _ in range(3))
    async with contextlib.AsyncExitStack() as stack:

        async def reserve(node_id: NodeId, host: str) -> None:
            place = await stack.enter_async_context(contextlib.aclosing(relay.reserve(node_id, host)))
            assert await anext(place) == b""

        await reserve(first, "192.0.2.1")
        await reserve(second, "192.0.2.1")
        with pytest.raises(StageFull, match="choose another"):
            await reserve(third, "192.0.2.1")
        await reserve(second, "192.0.2.1")  # it came back: that takes no further place
        await reserve(third, "192.0.2.2")
        assert relay.n_free_places == 1

        async def call(host: str) -> asyncio.Future[bytes]:
            chunks = relay.connect(first, silence(), NodeKey.generate().node_id, host)
            await stack.enter_async_context(contextlib.aclosing(chunks))
            calling = asyncio.ensure_future(anext(chunks))
            stack.callback(calling.cancel)
            await asyncio.sleep(0)
            return calling

        waiting = await call("192.0.2.3")
        with pytest.raises(StageFull, match="as many calls as it may"):
            await (await call("192.0.2.3"))
        other = await call("192.0.2.4")
        assert not waiting.done() and not other.done()
        for calling in (waiting, other):
            calling.cancel()
        await asyncio.gather(waiting, other, return_exceptions=True)
