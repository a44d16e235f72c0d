"""Serving calls: each authenticated, bounded and decoded before a handler sees it, its errors put on the wire."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc

from swarm.errors import (
    DeadlineExceeded,
    ListenError,
    LocalProtocolError,
    NodeUnreachable,
    RemoteProtocolError,
    SwarmError,
)
from swarm.identity import TlsIdentity
from swarm.messages import (
    ExpertCall,
    ExpertOpen,
    Leave,
    Open,
    Step,
)
from swarm.rpc import paths
from swarm.rpc.callers import Callers, host_of, outside_host
from swarm.rpc.config import RpcConfig, server_options
from swarm.rpc.handlers import ExpertsHandler, NodeHandler, RelayHandler, StageHandler
from swarm.rpc.health import Health
from swarm.rpc.status import abort_arguments
from swarm.terms import Address, NodeId
from swarm.wire import (
    decode_accept_opening,
    decode_connect_opening,
    decode_dial_back_request,
    decode_exchange_request,
    decode_expert_request,
    decode_relay_data,
    decode_results_request,
    decode_run_request,
    encode_dial_back_reply,
    encode_exchange_reply,
    encode_expert_reply,
    encode_relay_data,
    encode_reserve_reply,
    encode_result,
    encode_run_reply,
    encode_signed_fact,
)

_log = logging.getLogger(__name__)

Behaviour = Callable[[Any, grpc.aio.ServicerContext, NodeId], Awaitable[Any]]


class RpcServer:
    """One port that serves a node's Stage, Experts, Node, Relay and health services to callers who prove a node id."""

    def __init__(
        self, tls: TlsIdentity, config: RpcConfig, *, stage: StageHandler | None = None,
        node: NodeHandler | None = None, experts: ExpertsHandler | None = None, relay: RelayHandler | None = None,
    ) -> None:  # fmt: skip
        self._tls = tls
        self._config = config
        self._stage = stage
        self._node = node
        self._experts = experts
        self._relay = relay
        self._callers = Callers(tls.authority_pem, config.max_calls_per_caller)
        self._health = Health()
        self._servers: list[grpc.aio.Server] = []
        self._back_door: Address | None = None
        self._calls: set[asyncio.Task[Any]] = set()

    async def start(self, listen: Address) -> Address:
        """Listen and serve; port 0 takes a free one. -> the address bound. Raises: ListenError."""
        if self._servers:
            raise LocalProtocolError("this server was started before; make a new one to listen again")
        return await self._listen(listen, self._config)

    async def back_door(self) -> Address:
        """A second port, on loopback, for what a relay brings: the same services, patient with pings that wait behind
        bytes in a narrow place.
        """
        if self._back_door is None:
            self._back_door = await self._listen(Address("127.0.0.1", 0), self._config.through_relay())
        return self._back_door

    async def _listen(self, listen: Address, config: RpcConfig) -> Address:
        await _check_free(listen)
        server = grpc.aio.server(options=server_options(config), maximum_concurrent_rpcs=config.max_concurrent_rpcs)
        credentials = grpc.ssl_server_credentials(
            [(self._tls.private_key_pem, self._tls.certificate_pem)],
            root_certificates=self._tls.authority_pem,
            require_client_auth=True,
        )
        server.add_generic_rpc_handlers((self._methods(),))
        self._servers.append(server)
        try:
            port = server.add_secure_port(str(listen), credentials)
        except RuntimeError:
            raise ListenError(f"can't listen on {listen}; give an address of this machine, or another port") from None
        await server.start()
        return Address(listen.host, port)

    def set_serving(self, serving: bool) -> None:
        """What grpc.health.v1 says; a server starts as NOT_SERVING."""
        self._health.set_serving(serving)

    async def stop(self, grace_s: float = 0.0) -> None:
        """Refuse new calls at once, let those in flight go on for grace_s, cancel the rest, await their cleanup."""
        self._health.stop()
        if not self._servers:
            return
        await asyncio.gather(*(server.stop(grace_s) for server in self._servers))
        running = self._calls - {asyncio.current_task()}
        for call in running:
            call.cancel()
        if running:
            await asyncio.wait(running)

    def _methods(self) -> _Methods:
        def unary(behaviour: Behaviour) -> grpc.RpcMethodHandler:
            return grpc.unary_unary_rpc_method_handler(self._guarded(self._in_time(behaviour)))

        def answers(behaviour: Behaviour) -> grpc.RpcMethodHandler:
            return grpc.unary_stream_rpc_method_handler(self._guarded(behaviour))

        def stream(behaviour: Behaviour) -> grpc.RpcMethodHandler:
            return grpc.stream_stream_rpc_method_handler(self._guarded(behaviour))

        methods = {paths.HEALTH_CHECK: unary(self._health.check)}
        if self._stage is not None:
            methods |= {paths.RUN: stream(self._run), paths.RESULTS: answers(self._results)}
        if self._experts is not None:
            methods |= {paths.APPLY: stream(self._apply)}
        if self._node is not None:
            methods |= {paths.DESCRIBE: unary(self._describe), paths.EXCHANGE: unary(self._exchange)}
            methods |= {paths.DIAL_BACK: unary(self._dial_back)}
        if self._relay is not None:
            methods |= {paths.RESERVE: answers(self._reserve)}
            methods |= {paths.CONNECT: stream(self._connect), paths.ACCEPT: stream(self._accept)}
        return _Methods(methods)

    def _guarded(self, behaviour: Behaviour) -> Callable[[Any, grpc.aio.ServicerContext], Awaitable[Any]]:
        """The only way into a behaviour: with the caller's proved id. Errors end the call as the status table says."""

        async def serve(request: Any, context: grpc.aio.ServicerContext) -> Any:
            task = asyncio.current_task()
            if task is not None:
                self._calls.add(task)
                task.add_done_callback(self._calls.discard)
            try:
                with self._callers.one_more(context) as caller:
                    return await behaviour(request, context, caller)
            except SwarmError as error:
                await _abort(context, error)
            except grpc.aio.AbortError:
                raise
            except Exception as error:
                if not context.done():
                    _log.exception("a handler failed")
                    await _abort(context, error)

        return serve

    def _in_time(self, behaviour: Behaviour) -> Behaviour:
        async def timed(request: Any, context: grpc.aio.ServicerContext, caller: NodeId) -> Any:
            try:
                async with asyncio.timeout(self._config.unary_timeout_s):
                    return await behaviour(request, context, caller)
            except TimeoutError:
                raise DeadlineExceeded(f"not done within {self._config.unary_timeout_s:g} s") from None

        return timed

    async def _first_frame(self, context: grpc.aio.ServicerContext) -> bytes:
        try:
            async with asyncio.timeout(self._config.open_timeout_s):
                frame = await context.read()
        except TimeoutError:
            raise RemoteProtocolError(f"no first frame within {self._config.open_timeout_s:g} s") from None
        if frame is grpc.aio.EOF:
            raise RemoteProtocolError("a call that ended before its first frame")
        first: bytes = frame
        return first

    async def _run(self, _: Any, context: grpc.aio.ServicerContext, caller: NodeId) -> None:
        assert self._stage is not None
        opening = decode_run_request(await self._first_frame(context))
        if not isinstance(opening, Open):
            raise RemoteProtocolError("a Run that starts with a Step instead of an Open")
        async with contextlib.aclosing(_closable(self._stage.run(opening, _Steps(context), caller))) as replies:
            async for reply in replies:
                await context.write(encode_run_reply(reply))

    async def _apply(self, _: Any, context: grpc.aio.ServicerContext, caller: NodeId) -> None:
        assert self._experts is not None
        opening = decode_expert_request(await self._first_frame(context))
        if not isinstance(opening, ExpertOpen):
            raise RemoteProtocolError("an Apply that starts with a call instead of an Open")
        async with contextlib.aclosing(_closable(self._experts.apply(opening, _Calls(context), caller))) as replies:
            async for reply in replies:
                await context.write(encode_expert_reply(reply))

    async def _results(self, request: bytes, context: grpc.aio.ServicerContext, caller: NodeId) -> None:
        assert self._stage is not None
        session_id, epoch = decode_results_request(request)
        async with contextlib.aclosing(_closable(self._stage.results(session_id, epoch, caller))) as results:
            async for result in results:
                await context.write(encode_result(result))

    async def _describe(self, _: bytes, context: grpc.aio.ServicerContext, caller: NodeId) -> bytes:
        assert self._node is not None
        return encode_signed_fact(await self._node.describe(caller))

    async def _exchange(self, request: bytes, context: grpc.aio.ServicerContext, caller: NodeId) -> bytes:
        assert self._node is not None
        release, facts, known = decode_exchange_request(request)
        return encode_exchange_reply(
            *await self._node.exchange(release, facts, known, caller, outside_host(context.peer()))
        )

    async def _dial_back(self, request: bytes, context: grpc.aio.ServicerContext, caller: NodeId) -> bytes:
        assert self._node is not None
        address = Address(host_of(context.peer()), decode_dial_back_request(request))
        return encode_dial_back_reply(address.host, await self._node.dial_back(address, caller))

    async def _reserve(self, _: bytes, context: grpc.aio.ServicerContext, caller: NodeId) -> None:
        assert self._relay is not None
        async with contextlib.aclosing(_closable(self._relay.reserve(caller, outside_host(context.peer())))) as tunnels:
            async for tunnel in tunnels:
                await context.write(encode_reserve_reply(tunnel))

    async def _connect(self, _: Any, context: grpc.aio.ServicerContext, caller: NodeId) -> None:
        assert self._relay is not None
        target = decode_connect_opening(await self._first_frame(context))
        host = outside_host(context.peer())
        await _pass_on(self._relay.connect(target, _received(context), caller, host), context)

    async def _accept(self, _: Any, context: grpc.aio.ServicerContext, caller: NodeId) -> None:
        assert self._relay is not None
        tunnel = decode_accept_opening(await self._first_frame(context))
        await _pass_on(self._relay.accept(tunnel, _received(context), caller), context)


class _Methods(grpc.GenericRpcHandler):
    """Looks a method up by its path; gRPC answers UNIMPLEMENTED for the others."""

    def __init__(self, methods: dict[str, grpc.RpcMethodHandler]) -> None:
        self._methods = methods

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return self._methods.get(handler_call_details.method)


class _Steps:
    """A Run's Steps as they arrive. One reader at a time; reading in a task that outlives the call raises."""

    def __init__(self, context: grpc.aio.ServicerContext) -> None:
        self._context = context

    def __aiter__(self) -> _Steps:
        return self

    async def __anext__(self) -> Step:
        frame = await self._context.read()
        if frame is grpc.aio.EOF:
            raise NodeUnreachable("the caller went away without leaving the session")
        request = decode_run_request(frame)
        if isinstance(request, Leave):
            raise StopAsyncIteration
        if isinstance(request, Open):
            raise RemoteProtocolError("a second Open in one Run")
        return request


class _Calls:
    """An Apply's calls as they arrive. One reader at a time."""

    def __init__(self, context: grpc.aio.ServicerContext) -> None:
        self._context = context

    def __aiter__(self) -> _Calls:
        return self

    async def __anext__(self) -> ExpertCall:
        frame = await self._context.read()
        if frame is grpc.aio.EOF:
            raise StopAsyncIteration
        request = decode_expert_request(frame)
        if isinstance(request, ExpertOpen):
            raise RemoteProtocolError("a second Open in one Apply")
        return request


async def _received(context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
    while (frame := await context.read()) is not grpc.aio.EOF:
        yield decode_relay_data(frame)


async def _pass_on(data: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> None:
    async with contextlib.aclosing(_closable(data)) as chunks:
        async for chunk in chunks:
            await context.write(encode_relay_data(chunk))


def _closable(iterator: AsyncIterator[Any]) -> Any:
    """The iterator itself when it has an aclose (every async generator), else a generator around it."""
    if hasattr(iterator, "aclose"):
        return iterator

    async def generator() -> AsyncIterator[Any]:
        async for item in iterator:
            yield item

    return generator()


async def _abort(context: grpc.aio.ServicerContext, error: BaseException) -> None:
    code, details, metadata = abort_arguments(error)
    await context.abort(code, details, metadata)


async def _check_free(listen: Address) -> None:
    """Bind and let go, for the operating system's own words: gRPC says only that it could not."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, address in found[:1]:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
                probe.listen(1)
    except (OSError, UnicodeError) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        raise ListenError(
            f"can't listen on {listen}: {reason}; stop what listens there, or give another address or port (0: any)"
        ) from None
