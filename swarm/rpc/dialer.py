"""Connections to other nodes: identity proved before the first call, kept open, dropped when dead."""

from __future__ import annotations

import asyncio
import ssl
from types import TracebackType
from typing import Any

import grpc

from swarm.errors import LocalProtocolError, NodeUnreachable, RemoteProtocolError, Unauthenticated
from swarm.identity import TlsIdentity, node_id_of_certificate, tls_host_name
from swarm.rpc.config import RpcConfig, channel_options
from swarm.rpc.connection import Connection
from swarm.rpc.probe import Prober
from swarm.rpc.tunnel import LocalPort
from swarm.terms import Address, NodeId, short_id

HAND_OVER_S = 1.0
"""How long whoever was given a connection may take to begin a call on it, when another one takes its place."""


class Dialer:
    """Use within one event loop, and close: `async with Dialer(tls, config) as dialer`."""

    def __init__(self, tls: TlsIdentity, config: RpcConfig) -> None:
        self._tls = tls
        self._config = config
        self._prober = Prober(tls)
        self._pool: dict[tuple[Address, NodeId], Connection] = {}  # the longest unused first
        self._retired: set[Connection] = set()  # out of the pool, with calls that may still end well
        self._pending: dict[tuple[Address, NodeId | None], asyncio.Task[Connection]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    async def connect(self, address: Address, node_id: NodeId | None = None) -> Connection:
        """A live connection to the node at `address`, which has proved to be `node_id`, or the id that it bears then.

        An address with a target leads through a relay: the proof is the target's, and TLS goes from end to end.
        Raises: NodeUnreachable, Unauthenticated (another node listens there, or one of another swarm),
        RemoteProtocolError (something else listens there).
        """
        if self._closed:
            raise LocalProtocolError("this Dialer is closed")
        connection = self._pooled(address, node_id)
        if connection is not None:
            return connection
        pending = self._pending.get((address, node_id))
        if pending is None:
            pending = asyncio.create_task(self._open(address, node_id))
            self._pending[address, node_id] = pending
            pending.add_done_callback(lambda task: self._opened((address, node_id), task))
        try:
            return await asyncio.shield(pending)
        except asyncio.CancelledError:
            if pending.cancelled() and self._closed:
                raise NodeUnreachable(f"the Dialer was closed while it connected to {address}") from None
            raise

    async def close(self) -> None:
        """End every call and connection. Idempotent."""
        self._closed = True
        pending = tuple(self._pending.values())
        for task in pending:
            task.cancel()
        if pending:
            await asyncio.wait(pending)
        connections = (*self._pool.values(), *self._retired)
        self._pool.clear()
        self._retired.clear()
        await asyncio.gather(*(connection.close() for connection in connections), *self._closing)

    async def __aenter__(self) -> Dialer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _pooled(self, address: Address, node_id: NodeId | None) -> Connection | None:
        for key, connection in tuple(self._pool.items()):
            if key[0] != address or node_id not in (None, key[1]):
                continue
            del self._pool[key]
            if connection.alive:
                self._pool[key] = connection
                return connection
            self._retire(connection)
        return None

    async def _open(self, address: Address, node_id: NodeId | None) -> Connection:
        try:
            async with asyncio.timeout(self._config.connect_timeout_s):
                if address.target:
                    return await self._open_through_relay(address, node_id or NodeId(address.target))
                return await self._open_at(address, address, node_id)
        except TimeoutError:
            raise NodeUnreachable(f"{address} did not answer within {self._config.connect_timeout_s:g} s") from None

    async def _open_at(self, where: Address, address: Address, node_id: NodeId | None) -> Connection:
        """Dial `where`; the connection is called one to `address`."""
        certificate, target = await self._prober.leaf(where)
        proved = node_id_of_certificate(certificate, self._tls.authority_pem)
        if node_id is not None and proved != node_id:
            raise Unauthenticated(
                f"{address} is node {short_id(proved)} and not {short_id(node_id)}: it has changed hands"
            )
        return await self._open_channel(address, proved, certificate, target)

    async def _open_through_relay(self, address: Address, node_id: NodeId) -> Connection:
        relay = await self.connect(address.relay)
        port = await LocalPort.open(lambda: relay.tunnel_to(NodeId(address.target)))
        try:
            connection = await self._open_at(port.address, address, node_id)
        except (NodeUnreachable, RemoteProtocolError) as error:
            await port.close()
            raise port.fault or error from None
        except BaseException:
            await port.close()
            raise
        connection.on_close(port.close)
        return connection

    async def _open_channel(self, address: Address, node_id: NodeId, certificate: bytes, target: str) -> Connection:
        credentials = grpc.ssl_channel_credentials(
            # The leaf itself and not its authority, whose key is public: under that one anybody could answer.
            root_certificates=ssl.DER_cert_to_PEM_cert(certificate).encode("ascii"),
            private_key=self._tls.private_key_pem,
            certificate_chain=self._tls.certificate_pem,
        )
        config = self._config.through_relay() if address.target else self._config
        options = channel_options(config, tls_host_name(node_id))
        channel = grpc.aio.secure_channel(target, credentials, options=options)
        try:
            await _until_ready(channel, address)
        except BaseException:
            await channel.close()
            raise
        return Connection(channel, address, node_id, config, self._idle)

    def _opened(self, key: tuple[Address, NodeId | None], task: asyncio.Task[Connection]) -> None:
        del self._pending[key]
        if task.cancelled() or task.exception() is not None:
            return
        connection = task.result()
        previous = self._pool.pop((connection.address, connection.node_id), None)
        if previous is not None:
            self._retire(previous)
        self._pool[connection.address, connection.node_id] = connection
        self._shrink()

    def _shrink(self) -> None:
        for key, connection in tuple(self._pool.items()):
            if len(self._pool) <= self._config.max_connections:
                return
            if connection.n_calls == 0:
                del self._pool[key]
                self._retire(connection)

    def _retire(self, connection: Connection) -> None:
        """Close it once its calls have ended: a node that drains refuses new ones and finishes these."""
        self._retired.add(connection)
        self._idle(connection)

    def _idle(self, connection: Connection) -> None:
        if connection in self._retired and connection.n_calls == 0:
            asyncio.get_running_loop().call_later(HAND_OVER_S, self._close_idle, connection)

    def _close_idle(self, connection: Connection) -> None:
        if connection in self._retired and connection.n_calls == 0:
            self._retired.discard(connection)
            task = asyncio.create_task(connection.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


async def _until_ready(channel: grpc.aio.Channel, address: Address) -> None:
    state: Any = channel.get_state(try_to_connect=True)
    while state is not grpc.ChannelConnectivity.READY:
        if state in (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN):
            raise NodeUnreachable(f"{address} broke off the connection right after showing its certificate")
        await channel.wait_for_state_change(state)
        state = channel.get_state(try_to_connect=True)
