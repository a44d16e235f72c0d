"""One open connection to one node whose id is proved, and the calls on it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from swarm.errors import DeadlineExceeded, NodeUnreachable, RemoteProtocolError, SwarmError
from swarm.facts import Answer, Known, SignedFact
from swarm.messages import ExpertOpen, Open, Result
from swarm.rpc import paths
from swarm.rpc.config import RpcConfig
from swarm.rpc.experts_call import ExpertsCall
from swarm.rpc.run_call import RunCall
from swarm.rpc.status import Ending, error_of_ending
from swarm.rpc.stream import Stream
from swarm.rpc.tunnel import Tunnel
from swarm.terms import Address, Infohash, NodeId, SessionId, short_id
from swarm.wire import (
    decode_dial_back_reply,
    decode_exchange_reply,
    decode_reserve_reply,
    decode_result,
    decode_signed_fact,
    encode_accept_opening,
    encode_connect_opening,
    encode_dial_back_request,
    encode_exchange_request,
    encode_results_request,
)

PULSE_S = 3.0
"""Between questions to a node with which a stream is open: whether its process answers, which pings do not tell."""


class Connection:
    """Made by a Dialer, which closes it too. Every answer on it comes from `node_id`, or the call fails. Streams break
    when the transport does, and when the process at the other end hangs.

    on_idle: called when the last call in flight has ended.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        address: Address,
        node_id: NodeId,
        config: RpcConfig,
        on_idle: Callable[[Connection], None],
    ) -> None:
        self.address = address
        self.node_id = node_id
        self._channel = channel
        self._config = config
        self._on_idle = on_idle
        self._calls: dict[Any, Stream | None] = {}
        self._pulse: asyncio.Task[None] | None = None
        self._broken = False
        self._closed = False
        self._describe = channel.unary_unary(paths.DESCRIBE)
        self._exchange = channel.unary_unary(paths.EXCHANGE)
        self._dial_back = channel.unary_unary(paths.DIAL_BACK)
        self._check = channel.unary_unary(paths.HEALTH_CHECK)
        self._run = channel.stream_stream(paths.RUN)
        self._results = channel.unary_stream(paths.RESULTS)
        self._apply = channel.stream_stream(paths.APPLY)
        self._reserve = channel.unary_stream(paths.RESERVE)
        self._connect = channel.stream_stream(paths.CONNECT)
        self._accept = channel.stream_stream(paths.ACCEPT)
        self._on_close: list[Callable[[], Awaitable[None]]] = []

    @property
    def alive(self) -> bool:
        """No call has found it broken, and the transport is up as far as its pings can tell."""
        return not self._broken and self._channel.get_state() is grpc.ChannelConnectivity.READY

    @property
    def n_calls(self) -> int:
        return len(self._calls)

    async def describe(self, timeout_s: float) -> SignedFact:
        """The node's newest fact of itself; its signature is not checked."""
        signed = decode_signed_fact(await self._ask(self._describe, b"", timeout_s))
        if signed.fact.node_id != self.node_id:
            raise RemoteProtocolError(f"{self} describes another node than itself: {short_id(signed.fact.node_id)}")
        return signed

    async def exchange(
        self, release: Infohash, facts: Sequence[SignedFact], timeout_s: float, known: Known | None = None
    ) -> Answer:
        """Push facts, pull those that the node knows beyond `known`; their signatures are not checked."""
        request = encode_exchange_request(release, facts, known)
        asked_s = time.perf_counter()
        reply = await self._ask(self._exchange, request, timeout_s)
        rtt_s = time.perf_counter() - asked_s
        return Answer(self.node_id, *decode_exchange_reply(reply), rtt_s)

    async def dial_back(self, port: int, timeout_s: float) -> tuple[str, str]:
        """Have the node dial this one at the host that it sees and this port: (that host, '' or why it failed)."""
        request = encode_dial_back_request(port)
        return decode_dial_back_reply(await self._ask(self._dial_back, request, timeout_s))

    async def check_health(self, timeout_s: float) -> bool:
        """Does the node say that it is serving? Raises: NodeUnreachable, DeadlineExceeded and other RpcErrors."""
        answer = await self._ask(self._check, b"", timeout_s)
        try:
            response = health_pb2.HealthCheckResponse.FromString(answer)
        except DecodeError:
            raise RemoteProtocolError(f"{self} answers a health check with something else") from None
        return response.status == health_pb2.HealthCheckResponse.SERVING

    def run(self, opening: Open) -> RunCall:
        """A session's stream. It has no deadline: a node that stops answering ends it through pings."""
        self._check_open()
        return RunCall(self._stream(self._run()), opening)

    def apply_experts(self, opening: ExpertOpen) -> ExpertsCall:
        """A stream of calls of experts. It has no deadline, as `run` has none."""
        self._check_open()
        return ExpertsCall(self._stream(self._apply()), opening)

    async def results(self, session_id: SessionId, epoch: int) -> AsyncIterator[Result]:
        """Asked of the last stage; the call starts with the first item, and ends with the iterator."""
        self._check_open()
        stream = self._stream(self._results(encode_results_request(session_id, epoch)))
        try:
            while (frame := await stream.read()) is not None:
                yield decode_result(frame)
        finally:
            stream.cancel()

    async def reserve(self) -> AsyncGenerator[bytes, None]:
        """A place at this relay for as long as the iterator is read: first b"", then the tunnels to accept.

        Raises: StageFull (no place is left), and what else ends a call.
        """
        self._check_open()
        stream = self._stream(self._reserve(b""))
        try:
            while (frame := await stream.read()) is not None:
                yield decode_reserve_reply(frame)
        finally:
            stream.cancel()

    async def tunnel_to(self, target: NodeId) -> Tunnel:
        """Bytes to a node that keeps a place at this relay. What ends it is raised by its first send or receive."""
        return await self._tunnel(self._connect, encode_connect_opening(target))

    async def accept(self, tunnel: bytes) -> Tunnel:
        """The other end of a tunnel that `reserve` named."""
        return await self._tunnel(self._accept, encode_accept_opening(tunnel))

    def on_close(self, then: Callable[[], Awaitable[None]]) -> None:
        """What this connection came through is closed with it."""
        self._on_close.append(then)

    async def close(self) -> None:
        """End every call on it (they raise NodeUnreachable) and let go of the socket."""
        self._broken = self._closed = True
        for call, stream in tuple(self._calls.items()):
            if stream is None:
                call.cancel()
            else:
                stream.break_off(NodeUnreachable(f"the connection to {self} was closed during the call"))
        if self._pulse is not None:
            self._pulse.cancel()
            await asyncio.gather(self._pulse, return_exceptions=True)
        await self._channel.close()
        for then in self._on_close:
            await then()
        self._on_close.clear()

    async def _tunnel(self, method: Any, opening: bytes) -> Tunnel:
        self._check_open()
        stream = self._stream(method())
        await stream.write(opening)
        return Tunnel(stream)

    def __str__(self) -> str:
        return f"node {short_id(self.node_id)} at {self.address}"

    async def _ask(self, method: Any, request: bytes, timeout_s: float) -> bytes:
        self._check_open()
        call = method(request, timeout=timeout_s)
        with self._tracked(call):
            try:
                return await call
            except grpc.aio.AioRpcError as error:
                raise self._explain(Ending.of(error)) from None
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if self._closed and (task is None or not task.cancelling()):
                    raise NodeUnreachable(f"the connection to {self} was closed during the call") from None
                raise

    def _check_open(self) -> None:
        if self._closed:
            raise NodeUnreachable(f"the connection to {self} was closed; connect again")

    def _stream(self, call: Any) -> Stream:
        stream = Stream(call, self._config.max_message_bytes, self._explain)
        self._calls[call] = stream
        call.add_done_callback(self._forget)
        if self._pulse is None or self._pulse.done():
            self._pulse = asyncio.create_task(self._watch_process())
        return stream

    async def _watch_process(self) -> None:
        """Break the streams off when the process hangs, for as long as there are any."""
        silent_s = self._config.silent_s
        while self._streams:
            await asyncio.sleep(PULSE_S)
            try:
                await self.check_health(silent_s)
            except DeadlineExceeded:
                self._broken = True
                for stream in self._streams:
                    hangs = f"{self} is connected, but has answered nothing for {silent_s:g} s: it hangs"
                    stream.break_off(NodeUnreachable(hangs))
            except NodeUnreachable:
                return  # the streams know it
            except SwarmError:
                continue  # it has too much to do, or answers nonsense: it does answer

    @property
    def _streams(self) -> list[Stream]:
        return [stream for stream in self._calls.values() if stream is not None]

    @contextlib.contextmanager
    def _tracked(self, call: Any) -> Iterator[None]:
        self._calls[call] = None
        try:
            yield
        finally:
            self._forget(call)

    def _forget(self, call: Any) -> None:
        self._calls.pop(call, None)
        if not self._calls:
            self._on_idle(self)

    def _explain(self, ending: Ending) -> SwarmError:
        if ending.is_transport_failure:
            self._broken = True
        return error_of_ending(ending, str(self))
