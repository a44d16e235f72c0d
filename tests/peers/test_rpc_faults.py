"""Peers that die, stop, drain or come back; and an exit that leaves nothing behind."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import grpc
import pytest

from swarm.errors import ListenError, LocalProtocolError, NodeUnreachable, SwarmError
from swarm.identity import NodeKey
from swarm.messages import Failure, Open, Opened, Step
from swarm.rpc import RpcConfig
from swarm.rpc.dialer import HAND_OVER_S
from swarm.terms import Address, NodeId

WAIT_S = 30.0

SEEN_WITHIN_S = 30.0
"""A silent peer takes gRPC 60 s without our channel options; with them, 3 s (tests/unit/rpc/test_config.py)."""

CHILD = """
import asyncio, sys
from swarm.identity import NodeKey, issue
from swarm.messages import Opened
from swarm.rpc import Dialer, RpcConfig, RpcServer
from swarm.terms import Address

class Stage:
    async def run(self, opening, steps, caller):
        yield Opened(opening.epoch)
        async for _ in steps:
            pass
    async def results(self, session_id, epoch, caller):
        return
        yield

async def main():
    server = RpcServer(issue(NodeKey.generate()), RpcConfig.loopback(), stage=Stage())
    print(await server.start(Address("127.0.0.1", 0)), flush=True)
    async with Dialer(issue(NodeKey.generate()), RpcConfig.loopback()) as dialer:
        if len(sys.argv) > 1:
            call = (await dialer.connect(Address.parse(sys.argv[1]))).run(OPENING)
            print(await anext(call.replies()), flush=True)
        await asyncio.Event().wait()
"""


@pytest.fixture
def spawn(world: Any) -> Iterator[Any]:
    """spawn(*arguments) -> (process, its first line of output): a node in a process of its own."""
    children: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        code = (
            CHILD
            + "from swarm.messages import Open\nfrom swarm.facts import Hop\n"
            + "from swarm.terms import Span, Profile\n"
            + f"OPENING = {world.opening()!r}\n"
            + "asyncio.run(main())\n"
        )
        child = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)
        children.append(child)
        return child

    yield start
    for child in children:
        child.kill()
        child.wait()
        if child.stdout:
            child.stdout.close()


async def first_line(child: Any) -> str:
    return str(await asyncio.to_thread(child.stdout.readline)).strip()


async def fall_of(call: Any) -> SwarmError:
    """How an open Run ends."""
    try:
        async for _ in call.replies():
            pass
    except SwarmError as error:
        return error
    raise AssertionError("the call ended well")


@pytest.mark.parametrize("config", [RpcConfig.loopback(), RpcConfig.wan()], ids=["loopback", "wan"])
@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
async def test_a_dead_stage_is_noticed_long_before_grpc_would_by_itself(
    world: Any, spawn: Any, config: RpcConfig, signal_number: int
) -> None:
    child = spawn()
    dialer = world.dialer(config=replace(config, connect_timeout_s=2.0))
    connection = await dialer.connect(Address.parse(await first_line(child)))
    call = connection.run(world.opening())
    assert await anext(call.replies()) == Opened(1)
    falling = asyncio.create_task(fall_of(call))
    os.kill(child.pid, signal_number)
    assert isinstance(await asyncio.wait_for(falling, SEEN_WITHIN_S), NodeUnreachable)
    assert not connection.alive
    with pytest.raises(NodeUnreachable):
        await dialer.connect(connection.address)


async def test_a_stopped_client_is_noticed_by_its_stage(world: Any, spawn: Any) -> None:
    """The session's cache must not stay held for a client that will never ask again."""
    opened, ended = asyncio.Event(), asyncio.Event()

    async def running(opening: Open, steps: AsyncIterator[Step], caller: NodeId) -> AsyncIterator[Opened | Failure]:
        try:
            yield Opened(opening.epoch)
            opened.set()
            async for _ in steps:
                pass
        finally:
            ended.set()

    _, address = await world.serve(stage=world.stage(running=running))
    child = spawn(str(address))
    await asyncio.wait_for(opened.wait(), 20)
    await first_line(child)
    await first_line(child)
    os.kill(child.pid, signal.SIGSTOP)
    await asyncio.wait_for(ended.wait(), SEEN_WITHIN_S)


async def test_an_idle_connection_stays_up(world: Any) -> None:
    """Pings once a second are no attack: for as long as several pings take, no GOAWAY comes."""
    _, address = await world.serve()
    dialer = world.dialer()
    connection = await dialer.connect(address)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5.5):
            await connection._channel.wait_for_state_change(connection._channel.get_state())
    assert connection.alive
    assert await dialer.connect(address) is connection


async def hold(opening: Open, steps: AsyncIterator[Step], caller: NodeId) -> AsyncIterator[Opened | Failure]:
    yield Opened(opening.epoch)
    async for _ in steps:
        yield Opened(opening.epoch)


async def test_stopping_at_once_ends_running_streams(world: Any) -> None:
    cleaned = asyncio.Event()

    async def running(opening: Open, steps: AsyncIterator[Step], caller: NodeId) -> AsyncIterator[Opened | Failure]:
        try:
            yield Opened(opening.epoch)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # cleanup that waits is awaited too
            cleaned.set()

    server, address = await world.serve(stage=world.stage(running=running))
    call = (await world.connect(address)).run(world.opening())
    assert await anext(call.replies()) == Opened(1)
    falling = asyncio.create_task(fall_of(call))
    await asyncio.wait_for(server.stop(0), WAIT_S)  # the handler by itself would run for ever
    assert cleaned.is_set()
    assert isinstance(await asyncio.wait_for(falling, WAIT_S), NodeUnreachable)


async def test_draining_finishes_what_runs_and_refuses_what_comes(world: Any) -> None:
    server, address = await world.serve(stage=world.stage(running=hold))
    dialer = world.dialer()
    connection = await dialer.connect(address)
    async with connection.run(world.opening()) as call:
        replies = call.replies()
        assert await anext(replies) == Opened(1)
        stopping = asyncio.create_task(server.stop(grace_s=600.0))
        async with asyncio.timeout(WAIT_S):
            while True:
                try:
                    await dialer.connect(address)
                    await connection.check_health(WAIT_S)
                except NodeUnreachable:
                    break
        for position in range(3):
            await call.send(Step(1, position, (1,), 0))
            assert await anext(replies) == Opened(1)
        await call.leave()
        assert [reply async for reply in replies] == []
    await asyncio.wait_for(stopping, WAIT_S)


async def test_health_cannot_be_watched_for_ever(world: Any) -> None:
    _, address = await world.serve()
    connection = await world.connect(address)
    watch = connection._channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")
    assert await watch.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_restarted_node_is_dialled_anew(world: Any) -> None:
    key = NodeKey.generate()
    server, address = await world.serve(key=key)
    dialer = world.dialer()
    first = await dialer.connect(address, key.node_id)
    await server.stop(0)
    _, again = await world.serve(key=key, listen=address)
    assert again == address
    async with asyncio.timeout(WAIT_S):
        while (second := await dialer.connect(address, key.node_id)) is first:
            with pytest.raises(NodeUnreachable):
                await first.check_health(WAIT_S)
    assert await second.check_health(WAIT_S) is False


async def test_a_taken_port_is_a_listen_error(world: Any) -> None:
    _, address = await world.serve()
    with pytest.raises(ListenError, match="in use"):
        await world.serve(listen=address)
    for nowhere in (Address("192.0.2.1", 0), Address("no-such-host.invalid", 0)):
        with pytest.raises(ListenError):
            await world.serve(listen=nowhere)


async def test_a_server_starts_once(world: Any) -> None:
    server, _ = await world.serve()
    with pytest.raises(LocalProtocolError):
        await server.start(Address("127.0.0.1", 0))
    await server.stop()
    await server.stop()


async def test_many_dials_of_one_node_make_one_connection(world: Any) -> None:
    key = NodeKey.generate()
    _, address = await world.serve(key=key)
    dialer = world.dialer()
    connections = await asyncio.gather(*(dialer.connect(address, key.node_id) for _ in range(20)))
    assert len({id(connection) for connection in connections}) == 1


async def test_dials_with_and_without_the_id_all_give_a_connection_to_use(world: Any) -> None:
    """Whoever loses the race for the place in the pool has been given a connection too, and is about to call on it."""
    _, address = await world.serve()
    node_id = (await world.connect(address)).node_id
    for _ in range(10):
        dialer = world.dialer()
        opened = await asyncio.gather(dialer.connect(address), dialer.connect(address, node_id))
        await asyncio.sleep(0)
        assert [await connection.check_health(WAIT_S) for connection in opened] == [False, False]


async def test_a_cancelled_dial_leaves_the_others_alone(world: Any) -> None:
    _, address = await world.serve()
    dialer = world.dialer()
    first = asyncio.create_task(dialer.connect(address))
    second = asyncio.create_task(dialer.connect(address))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert (await second).alive


async def test_closing_ends_a_dial_under_way(world: Any) -> None:
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0, start_serving=False)
    async with server:
        port = server.sockets[0].getsockname()[1]
        dialer = world.dialer()
        dialling = asyncio.create_task(dialer.connect(Address("127.0.0.1", port)))
        await asyncio.wait({dialling}, timeout=0.1)
        await dialer.close()
        with pytest.raises(NodeUnreachable):
            await asyncio.wait_for(dialling, WAIT_S)


async def test_the_pool_closes_the_longest_unused(world: Any) -> None:
    dialer = world.dialer(config=RpcConfig(max_connections=2))
    addresses = [(await world.serve())[1] for _ in range(3)]
    a, b = await dialer.connect(addresses[0]), await dialer.connect(addresses[1])
    assert await dialer.connect(addresses[0]) is a
    c = await dialer.connect(addresses[2])
    await asyncio.sleep(2 * HAND_OVER_S)  # until then whoever was given it may begin a call
    with pytest.raises(NodeUnreachable):
        await b.check_health(WAIT_S)
    for connection in (a, c):
        assert await connection.check_health(WAIT_S) is False


def test_a_process_ends_without_a_word(world_program: str) -> None:
    """Servers, dialers, open and abandoned calls: no warning, no log line, no thread that holds the exit."""
    ended = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", world_program],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONASYNCIODEBUG": "0"},
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")


@pytest.fixture
def world_program() -> str:
    return """
import asyncio
from swarm.errors import NodeUnreachable
from swarm.facts import Hop
from swarm.identity import NodeKey, issue
from swarm.messages import Open, Opened, Step
from swarm.rpc import Dialer, RpcConfig, RpcServer
from swarm.terms import Address, Infohash, Profile, SessionId, Span

class Stage:
    async def run(self, opening, steps, caller):
        yield Opened(opening.epoch)
        async for _ in steps:
            pass
    async def results(self, session_id, epoch, caller):
        await asyncio.Event().wait()
        yield

async def main():
    key = NodeKey.generate()
    config = RpcConfig.loopback()
    server = RpcServer(issue(key), config, stage=Stage())
    address = await server.start(Address("127.0.0.1", 0))
    hops = (Hop(key.node_id, address, Span(0, 1)),)
    opening = Open(SessionId("0" * 32), 1, Infohash("0" * 40), key.node_id, hops, 0, Profile("bf16"), 9, 1)
    async with Dialer(issue(NodeKey.generate()), config) as dialer:
        connection = await dialer.connect(address)
        await connection.check_health(5)
        calls = [connection.run(opening) for _ in range(4)]
        for call in calls[:3]:
            await anext(call.replies())
            await call.send(Step(1, 0, (1,), 1))
        calls[0].cancel()
        await calls[1].leave()
        results = asyncio.ensure_future(anext(connection.results(opening.session_id, 1)))
        await asyncio.wait({results}, timeout=0.1)
        results.cancel()
        await asyncio.wait({results})
        unfinished = asyncio.ensure_future(connection.describe(5))
        await asyncio.sleep(0)
        unfinished.cancel()
        lost = asyncio.ensure_future(anext(calls[2].replies()))
        await asyncio.wait({lost}, timeout=0.1)
        await server.stop(0)
        try:
            await lost
        except NodeUnreachable:
            pass
        try:
            await dialer.connect(address)
        except NodeUnreachable:
            pass

asyncio.run(main())
asyncio.run(main())
print("done")
"""


async def test_an_idle_connection_is_let_go_and_made_anew(world: Any) -> None:
    _, address = await world.serve(config=RpcConfig(idle_timeout_s=0.2))
    dialer = world.dialer()
    first = await dialer.connect(address)
    async with asyncio.timeout(WAIT_S):
        while first.alive:
            await first._channel.wait_for_state_change(first._channel.get_state())
    second = await dialer.connect(address)
    assert second is not first
    assert await second.check_health(WAIT_S) is False
