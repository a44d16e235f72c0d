"""Calls between real grpc.aio ends over mutual TLS: what goes in comes out, and every ending has its class."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from swarm.errors import (
    DeadlineExceeded,
    LocalProtocolError,
    NodeUnreachable,
    PositionMismatch,
    RemoteProtocolError,
    SessionLost,
    StageFull,
    StaleEpoch,
    SwarmError,
)
from swarm.identity import NodeKey, issue, tls_host_name
from swarm.messages import Failure, HopTime, Leave, Open, Opened, Result, Rows, Step, TopLogits
from swarm.rpc import RpcConfig
from swarm.rpc.config import channel_options
from swarm.terms import Address, Infohash, NodeId, SessionId
from swarm.wire import encode_run_request

SESSION = SessionId("cd" * 16)
WAIT_S = 5.0


async def echo(opening: Open, steps: AsyncIterator[Step], caller: NodeId) -> AsyncIterator[Opened | Failure]:
    """Opened, then for each step a Failure that repeats its position: the only replies that a Run has."""
    yield Opened(opening.epoch)
    async for step in steps:
        yield Failure(0, caller, "SessionLost", f"position {step.position} rows {step.n_rows}")


async def test_describe_and_exchange_carry_facts_and_the_caller(world: Any) -> None:
    key, client = NodeKey.generate(), NodeKey.generate()
    node = world.node(key)
    _, address = await world.serve(key=key, node=node)
    connection = await world.dialer(client).connect(address)
    fact = await connection.describe(WAIT_S)
    assert fact == world.signed_fact(key)
    answer = await connection.exchange(Infohash("ab" * 20), [fact, fact], WAIT_S)
    assert (answer.facts, answer.more, answer.node_id) == ((fact, fact), False, connection.node_id)
    assert 0 < answer.rtt_s < WAIT_S
    assert node.callers == [client.node_id, client.node_id]


async def test_a_node_that_describes_another_is_refused(world: Any) -> None:
    _, address = await world.serve(node=world.node(NodeKey.generate()))
    connection = await world.connect(address)
    with pytest.raises(RemoteProtocolError, match="another node"):
        await connection.describe(WAIT_S)


async def test_health_follows_set_serving(world: Any) -> None:
    server, address = await world.serve()
    connection = await world.connect(address)
    assert await connection.check_health(WAIT_S) is False
    server.set_serving(True)
    assert await connection.check_health(WAIT_S) is True


async def test_a_session_steps_and_ends(world: Any) -> None:
    client = NodeKey.generate()
    _, address = await world.serve(stage=world.stage(running=echo))
    connection = await world.dialer(client).connect(address)
    async with connection.run(world.opening()) as call:
        replies = call.replies()
        assert await anext(replies) == Opened(1)
        await call.send(Step(1, 0, (5, 6, 7), 0))
        assert await anext(replies) == Failure(0, client.node_id, "SessionLost", "position 0 rows 3")
        await call.send(Step(1, 3, Rows(2, "bf16", bytes(64)), 1, (HopTime(client.node_id, 0.5, 0.25),)))
        assert await anext(replies) == Failure(0, client.node_id, "SessionLost", "position 3 rows 2")
        await call.leave()
        assert [reply async for reply in replies] == []
        await call.leave()
        with pytest.raises(LocalProtocolError):
            await call.send(Step(1, 5, (1,), 1))


async def test_tensors_of_megabytes_arrive_whole(world: Any) -> None:
    seen: asyncio.Queue[Step] = asyncio.Queue()

    async def keep(opening: Open, steps: AsyncIterator[Step], caller: NodeId) -> AsyncIterator[Opened | Failure]:
        yield Opened(opening.epoch)
        async for step in steps:
            seen.put_nowait(step)

    _, address = await world.serve(stage=world.stage(running=keep))
    data = bytes(range(256)) * (16 << 12)  # 16 MiB
    async with (await world.connect(address)).run(world.opening()) as call:
        for position in (0, 2048):
            await call.send(Step(1, position, Rows(2048, "bf16", memoryview(data)), 0))
        for position in (0, 2048):
            step = await asyncio.wait_for(seen.get(), WAIT_S)
            assert step == Step(1, position, Rows(2048, "bf16", data), 0)


async def test_many_sessions_share_one_connection(world: Any) -> None:
    _, address = await world.serve(stage=world.stage(running=echo))
    connection = await world.connect(address)

    async def session(start: int) -> None:
        async with connection.run(world.opening()) as call:
            replies = call.replies()
            assert await anext(replies) == Opened(1)
            for position in range(start, start + 10):
                await call.send(Step(1, position, (1,), 1))
                reply = await anext(replies)
                assert isinstance(reply, Failure)
                assert reply.message == f"position {position} rows 1"

    async with asyncio.timeout(20):
        await asyncio.gather(*(session(100 * i) for i in range(20)))


async def test_results_reach_their_asker(world: Any) -> None:
    made = [Result(1, i, (TopLogits((4, 2), (1.0, 0.5), 1.5),), ()) for i in (1, 2, 3)]
    asked: list[Any] = []

    async def resulting(session_id: SessionId, epoch: int, caller: NodeId) -> AsyncIterator[Result]:
        asked.append((session_id, epoch, caller))
        for result in made:
            yield result

    client = NodeKey.generate()
    _, address = await world.serve(stage=world.stage(resulting=resulting))
    connection = await world.dialer(client).connect(address)
    assert [result async for result in connection.results(SESSION, 1)] == made
    assert asked == [(SESSION, 1, client.node_id)]


@pytest.mark.parametrize(
    "error", [SessionLost("gone"), StaleEpoch("zombie"), PositionMismatch("replay from 3"), StageFull("full", 7.5)]
)
async def test_a_handler_s_error_comes_back_as_its_class(world: Any, error: SwarmError) -> None:
    async def fail(opening: Open, steps: AsyncIterator[Step], caller: NodeId) -> AsyncIterator[Opened | Failure]:
        yield Opened(opening.epoch)
        async for _ in steps:
            raise error

    async def failing_results(session_id: SessionId, epoch: int, caller: NodeId) -> AsyncIterator[Result]:
        raise error
        yield

    node = world.node(raises=error)
    _, address = await world.serve(stage=world.stage(running=fail, resulting=failing_results), node=node)
    connection = await world.connect(address)
    caught: list[SwarmError] = []

    async with connection.run(world.opening()) as call:
        replies = call.replies()
        await anext(replies)
        await call.send(Step(1, 0, (1,), 1))
        caught.append(await the_error_of(anext(replies)))
        caught.append(await the_error_of(call.send(Step(1, 1, (1,), 1))))
    caught.append(await the_error_of(anext(connection.results(SESSION, 1))))
    caught.append(await the_error_of(connection.describe(WAIT_S)))
    caught.append(await the_error_of(connection.exchange(Infohash("ab" * 20), [], WAIT_S)))
    for got in caught:
        assert type(got) is type(error)
        assert error.message in got.message
        assert getattr(got, "retry_after_s", None) == getattr(error, "retry_after_s", None)
    assert connection.alive  # the stage failed, not the connection


async def the_error_of(doing: Any) -> SwarmError:
    async with asyncio.timeout(WAIT_S):
        try:
            await doing
        except SwarmError as error:
            return error
    raise AssertionError("no error was raised")


async def test_the_error_survives_a_sender_at_full_speed(world: Any) -> None:
    """gRPC reports a failed write before the status that explains it has arrived."""

    async def fail_soon(opening: Open, steps: AsyncIterator[Step], caller: NodeId) -> AsyncIterator[Opened | Failure]:
        yield Opened(opening.epoch)
        async for step in steps:
            if step.position == 5:
                raise PositionMismatch("replay")

    _, address = await world.serve(stage=world.stage(running=fail_soon))
    connection = await world.connect(address)

    async def send_until_refused() -> SwarmError:
        async with connection.run(world.opening()) as call:
            reading = asyncio.create_task(the_error_of(drain(call.replies())))
            for position in range(10_000):
                try:
                    await call.send(Step(1, position, Rows(64, "bf16", bytes(1 << 17)), 0))
                except SwarmError as error:
                    assert type(await reading) is PositionMismatch
                    return error
        raise AssertionError("nothing stopped the sender")

    async with asyncio.timeout(30):
        for _ in range(10):
            assert type(await send_until_refused()) is PositionMismatch


async def drain(items: AsyncIterator[Any]) -> None:
    async for _ in items:
        pass


async def test_a_bug_in_a_handler_is_logged_here_and_hidden_there(world: Any, caplog: Any) -> None:
    node = world.node(raises=KeyError("/home/volunteer/.secret"))
    _, address = await world.serve(node=node)
    connection = await world.connect(address)
    with caplog.at_level(logging.ERROR, logger="swarm.rpc"):
        error = await the_error_of(connection.describe(WAIT_S))
    assert type(error) is RemoteProtocolError
    assert "secret" not in str(error)
    assert "/home/volunteer/.secret" in caplog.text


async def test_a_deadline_ends_the_call_at_both_ends(world: Any) -> None:
    node = world.node(delay_s=60.0)
    _, address = await world.serve(node=node)
    connection = await world.connect(address)
    with pytest.raises(DeadlineExceeded):
        await connection.describe(0.2)
    await asyncio.wait_for(node.cancelled.wait(), WAIT_S)
    assert connection.alive


async def test_a_server_s_own_limit_needs_no_deadline_of_the_caller(world: Any) -> None:
    node = world.node(delay_s=60.0)
    _, address = await world.serve(node=node, config=RpcConfig(unary_timeout_s=0.2))
    connection = await world.connect(address)
    with pytest.raises(DeadlineExceeded):
        await connection.describe(30.0)
    await asyncio.wait_for(node.cancelled.wait(), WAIT_S)


async def test_cancelling_the_caller_reaches_the_handler(world: Any) -> None:
    node = world.node(delay_s=60.0)
    _, address = await world.serve(node=node)
    connection = await world.connect(address)
    calling = asyncio.create_task(connection.describe(30.0))
    async with asyncio.timeout(WAIT_S):
        while not node.callers:
            await asyncio.wait({calling}, timeout=0.01)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        await node.cancelled.wait()


class HangingStage:
    """Opens, then waits for ever. ended: set by the cleanup of each stream."""

    def __init__(self) -> None:
        self.run_ended = asyncio.Event()
        self.results_ended = asyncio.Event()

    async def run(
        self, opening: Open, steps: AsyncIterator[Step], caller: NodeId, /
    ) -> AsyncIterator[Opened | Failure]:
        try:
            yield Opened(opening.epoch)
            async for _ in steps:
                await asyncio.Event().wait()
        finally:
            self.run_ended.set()

    async def results(self, session_id: SessionId, epoch: int, caller: NodeId, /) -> AsyncIterator[Result]:
        try:
            yield Result(1, 1, (), ())
            await asyncio.Event().wait()
        finally:
            self.results_ended.set()


@pytest.mark.parametrize("way", ["cancel", "leave", "cancel the reader", "cancel the sender"])
async def test_ending_a_run_early_reaches_the_stage(world: Any, way: str) -> None:
    stage = HangingStage()
    _, address = await world.serve(stage=stage)
    connection = await world.connect(address)
    call = connection.run(world.opening())
    replies = call.replies()
    assert await anext(replies) == Opened(1)
    await call.send(Step(1, 0, (1,), 1))
    match way:
        case "cancel":
            reading = asyncio.create_task(drain(replies))
            await asyncio.wait({reading}, timeout=0.05)
            call.cancel()
            await asyncio.wait_for(reading, WAIT_S)
            with pytest.raises(LocalProtocolError):
                await call.send(Step(1, 1, (1,), 1))
        case "leave":
            async with call:
                pass
        case "cancel the reader":
            reading = asyncio.create_task(drain(replies))
            await asyncio.wait({reading}, timeout=0.05)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
        case "cancel the sender":
            sending = asyncio.create_task(send_for_ever(call))
            await asyncio.wait({sending}, timeout=0.2)
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
    await asyncio.wait_for(stage.run_ended.wait(), WAIT_S)


async def send_for_ever(call: Any) -> None:
    """Until flow control stops it: nobody reads at the other end."""
    while True:
        await call.send(Step(1, 1, Rows(64, "bf16", bytes(1 << 20)), 0))


async def test_leaving_the_results_reaches_the_stage(world: Any) -> None:
    stage = HangingStage()
    _, address = await world.serve(stage=stage)
    connection = await world.connect(address)
    async with contextlib.aclosing(connection.results(SESSION, 1)) as results:
        async for result in results:
            assert result.position == 1
            break
    await asyncio.wait_for(stage.results_ended.wait(), WAIT_S)


async def test_a_stage_that_ends_while_we_send_has_lost_the_session(world: Any) -> None:
    async def leave(opening: Open, steps: AsyncIterator[Step], caller: NodeId) -> AsyncIterator[Opened | Failure]:
        yield Opened(opening.epoch)

    _, address = await world.serve(stage=world.stage(running=leave))
    async with (await world.connect(address)).run(world.opening()) as call:
        assert [reply async for reply in call.replies()] == [Opened(1)]
        with pytest.raises(SessionLost):
            await call.send(Step(1, 0, (1,), 1))
        await call.leave()


async def test_sender_that_is_cancelled_while_nobody_reads(world: Any) -> None:
    """Backpressure: a stage that does not read stops the sender; memory does not grow with what was not taken."""
    stage = HangingStage()
    _, address = await world.serve(stage=stage)
    async with (await world.connect(address)).run(world.opening()) as call:
        await anext(call.replies())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await send_for_ever(call)


async def test_messages_over_the_limit_are_refused_either_way(world: Any) -> None:
    small, large = RpcConfig(max_message_bytes=100_000), RpcConfig()
    seen: list[Step] = []

    async def keep(opening: Open, steps: AsyncIterator[Step], caller: NodeId) -> AsyncIterator[Opened | Failure]:
        yield Opened(opening.epoch)
        async for step in steps:
            seen.append(step)

    async def large_results(session_id: SessionId, epoch: int, caller: NodeId) -> AsyncIterator[Result]:
        yield Result(1, 1, (TopLogits(tuple(range(30_000)), tuple(-float(i) for i in range(30_000)), 1.0),), ())

    stage = world.stage(running=keep, resulting=large_results)
    too_large = Step(1, 0, Rows(64, "bf16", bytes(200_000 // 128 * 128)), 0)

    _, address = await world.serve(stage=stage, config=small)
    async with (await world.connect(address, config=large)).run(world.opening()) as call:
        replies = call.replies()
        assert await anext(replies) == Opened(1)
        with contextlib.suppress(RemoteProtocolError):
            await call.send(too_large)
        assert type(await the_error_of(anext(replies))) is RemoteProtocolError

    _, address = await world.serve(stage=stage, config=large)
    connection = await world.connect(address, config=small)
    assert type(await the_error_of(anext(connection.results(SESSION, 1)))) is RemoteProtocolError
    async with connection.run(world.opening()) as call:
        replies = call.replies()
        assert await anext(replies) == Opened(1)
        assert type(await the_error_of(call.send(too_large))) is LocalProtocolError
        await call.leave()
        assert [reply async for reply in replies] == []
    assert seen == []


async def test_calls_over_the_limit_are_refused_not_queued(world: Any) -> None:
    stage = HangingStage()
    _, address = await world.serve(stage=stage, config=RpcConfig(max_concurrent_rpcs=2))
    connections = [await world.connect(address) for _ in range(3)]
    async with contextlib.AsyncExitStack() as stack:
        for connection in connections[:2]:
            call = await stack.enter_async_context(connection.run(world.opening()))
            assert await anext(call.replies()) == Opened(1)
        assert type(await the_error_of(connections[2].check_health(WAIT_S))) is StageFull


async def test_one_caller_leaves_calls_to_others(world: Any) -> None:
    _, address = await world.serve(stage=HangingStage(), config=RpcConfig(max_calls_per_caller=2))
    key = NodeKey.generate()
    greedy, other = [await world.dialer(one).connect(address) for one in (key, NodeKey.generate())]
    async with contextlib.AsyncExitStack() as stack:
        calls = [await stack.enter_async_context(greedy.run(world.opening())) for _ in range(2)]
        for call in calls:
            assert await anext(call.replies()) == Opened(1)
        assert type(await the_error_of(greedy.check_health(WAIT_S))) is StageFull
        assert not await other.check_health(WAIT_S), "an answer, which is that it does not serve yet"
        calls[0].cancel()
        async with asyncio.timeout(WAIT_S):
            while True:
                with contextlib.suppress(StageFull):
                    await greedy.check_health(WAIT_S)
                    break


async def test_methods_that_a_server_does_not_offer(world: Any) -> None:
    _, address = await world.serve()
    connection = await world.connect(address)
    assert type(await the_error_of(connection.describe(WAIT_S))) is RemoteProtocolError
    assert type(await the_error_of(anext(connection.run(world.opening()).replies()))) is RemoteProtocolError


async def raw_run(address: Address, server: NodeId, certificate: bytes, *frames: bytes) -> grpc.StatusCode:
    """Send frames as they are, as only a hostile or broken client would."""
    tls = issue(NodeKey.generate())
    credentials = grpc.ssl_channel_credentials(certificate, tls.private_key_pem, tls.certificate_pem)
    options = channel_options(RpcConfig(), tls_host_name(server))
    async with grpc.aio.secure_channel(str(address), credentials, options=options) as channel:
        call = channel.stream_stream("/swarm.wire.v1.Stage/Run")()
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            for frame in frames:
                await call.write(frame)
            await call.done_writing()
        async with asyncio.timeout(WAIT_S):
            with contextlib.suppress(grpc.aio.AioRpcError):
                await drain(call)  # the status comes after the messages
            return await call.code()


async def test_frames_out_of_order_or_out_of_bounds_end_the_run(world: Any) -> None:
    key = NodeKey.generate()
    entered: list[Open] = []

    async def count(opening: Open, steps: AsyncIterator[Step], caller: NodeId) -> AsyncIterator[Opened | Failure]:
        entered.append(opening)
        async for _ in steps:
            yield Opened(opening.epoch)

    _, address = await world.serve(key=key, stage=world.stage(running=count))
    certificate = issue(key).certificate_pem
    good_open, good_step = encode_run_request(world.opening()), encode_run_request(Step(1, 0, (1,), 1))
    frames: tuple[bytes, ...]
    for frames in ((), (b"",), (b"\xff" * 50,), (good_step,), (good_step, good_open)):
        assert await raw_run(address, key.node_id, certificate, *frames) is grpc.StatusCode.INVALID_ARGUMENT
    assert entered == []
    for frames in ((good_open, good_open), (good_open, good_step, b"\x12\x00")):
        assert await raw_run(address, key.node_id, certificate, *frames) is grpc.StatusCode.INVALID_ARGUMENT
    leave = encode_run_request(Leave())
    assert await raw_run(address, key.node_id, certificate, good_open, good_step, leave) is grpc.StatusCode.OK
    gone = await raw_run(address, key.node_id, certificate, good_open, good_step)
    assert gone is grpc.StatusCode.UNAVAILABLE, "it said nothing of leaving"


async def test_a_run_without_its_open_is_ended(world: Any) -> None:
    key = NodeKey.generate()
    _, address = await world.serve(key=key, stage=HangingStage(), config=RpcConfig(open_timeout_s=0.2))
    tls = issue(NodeKey.generate())
    credentials = grpc.ssl_channel_credentials(issue(key).certificate_pem, tls.private_key_pem, tls.certificate_pem)
    options = channel_options(RpcConfig(), tls_host_name(key.node_id))
    async with grpc.aio.secure_channel(str(address), credentials, options=options) as channel:
        call = channel.stream_stream("/swarm.wire.v1.Stage/Run")()
        async with asyncio.timeout(WAIT_S):
            assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_server_that_answers_nonsense_is_a_protocol_error(world: Any) -> None:
    """The client's decoders guard it as the server's do."""
    key = NodeKey.generate()

    class Nonsense(grpc.GenericRpcHandler):
        def service(self, details: Any) -> Any:
            async def unary(request: bytes, context: Any) -> bytes:
                return b"\xff" * 20

            async def stream(requests: Any, context: Any) -> None:
                await context.write(b"\xff" * 20)

            if details.method.endswith("/Run"):
                return grpc.stream_stream_rpc_method_handler(stream)
            if details.method.endswith("/Results"):
                return grpc.unary_stream_rpc_method_handler(stream)
            return grpc.unary_unary_rpc_method_handler(unary)

    tls = issue(key)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Nonsense(),))
    port = server.add_secure_port(
        "127.0.0.1:0",
        grpc.ssl_server_credentials([(tls.private_key_pem, tls.certificate_pem)], tls.authority_pem, True),
    )
    await server.start()
    try:
        connection = await world.connect(Address("127.0.0.1", port))
        for doing in (
            connection.describe(WAIT_S),
            connection.exchange(Infohash("ab" * 20), [], WAIT_S),
            connection.check_health(WAIT_S),
            anext(connection.run(world.opening()).replies()),
            anext(connection.results(SESSION, 1)),
        ):
            assert type(await the_error_of(doing)) is RemoteProtocolError
    finally:
        await server.stop(0)


async def test_a_closed_connection_says_so(world: Any) -> None:
    _, address = await world.serve(stage=HangingStage())
    dialer = world.dialer()
    connection = await dialer.connect(address)
    call = connection.run(world.opening())
    replies = call.replies()
    await anext(replies)
    reading = asyncio.create_task(the_error_of(anext(replies)))
    await asyncio.wait({reading}, timeout=0.05)
    await dialer.close()
    assert type(await reading) is NodeUnreachable
    assert type(await the_error_of(connection.describe(WAIT_S))) is NodeUnreachable
    with pytest.raises(NodeUnreachable):
        connection.run(world.opening())
    with pytest.raises(LocalProtocolError):
        await dialer.connect(address)
