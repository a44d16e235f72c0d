"""Bytes through a relay, and the local ends that gRPC can use: it takes no sockets of ours, so it is given a port.

What passes is the TLS of two ends that a relay joins: neither this module nor the relay sees inside.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from swarm.errors import SwarmError
from swarm.rpc.stream import Stream
from swarm.terms import Address
from swarm.wire import MAX_DATA_BYTES, decode_relay_data, encode_relay_data

_log = logging.getLogger(__name__)


class Tunnel:
    """One end of a joined pair. One task may send while another receives."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def send(self, data: bytes) -> None:
        """At most MAX_DATA_BYTES. Raises: the error that ended the call."""
        await self._stream.write(encode_relay_data(data))

    async def receive(self) -> bytes | None:
        """None at the end. Raises: the error that ended the call."""
        frame = await self._stream.read()
        return None if frame is None else decode_relay_data(frame)

    def close(self) -> None:
        self._stream.cancel()


async def bridge(tunnel: Tunnel, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass bytes both ways until either side ends; then both have. Raises: the error that ended the tunnel."""

    async def outward() -> None:
        while data := await reader.read(MAX_DATA_BYTES):
            await tunnel.send(data)

    async def inward() -> None:
        while (data := await tunnel.receive()) is not None:
            writer.write(data)
            await writer.drain()

    tasks = [asyncio.create_task(outward()), asyncio.create_task(inward())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        tunnel.close()
        writer.transport.abort()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        with contextlib.suppress(OSError):  # the local end hung up: that is how its connections end
            task.result()


class LocalPort:
    """A port on loopback, each connection to which is a tunnel of its own. Made by open(); close it.

    fault: why the last tunnel failed, None while none did.
    """

    def __init__(self, open_tunnel: Callable[[], Awaitable[Tunnel]]) -> None:
        self._open_tunnel = open_tunnel
        self._server: asyncio.Server | None = None
        self._bridges: set[asyncio.Task[None]] = set()
        self.fault: SwarmError | None = None

    @classmethod
    async def open(cls, open_tunnel: Callable[[], Awaitable[Tunnel]]) -> LocalPort:
        port = cls(open_tunnel)
        port._server = await asyncio.start_server(port._accept, "127.0.0.1", 0, limit=2 * MAX_DATA_BYTES)
        return port

    @property
    def address(self) -> Address:
        assert self._server is not None
        return Address("127.0.0.1", int(self._server.sockets[0].getsockname()[1]))

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in tuple(self._bridges):
            task.cancel()
        await asyncio.gather(*self._bridges, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._bridges.add(task)
        task.add_done_callback(self._bridges.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await bridge(await self._open_tunnel(), reader, writer)
        except SwarmError as error:
            self.fault = error
            writer.transport.abort()


async def let_in(tunnel: Tunnel, listening: Address) -> None:
    """Join a tunnel that a relay offers to this node's own port, until either side ends."""
    try:
        reader, writer = await asyncio.open_connection(listening.host, listening.port, limit=2 * MAX_DATA_BYTES)
    except OSError as error:
        tunnel.close()
        _log.warning("this node's own port %s does not answer: %s", listening, error)
        return
    with contextlib.suppress(SwarmError):  # the other end, or the relay, went away
        await bridge(tunnel, reader, writer)
