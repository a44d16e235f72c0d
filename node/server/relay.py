"""The Relay service: joins calls to nodes that nobody can dial, and cannot read what passes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field

from swarm.errors import NodeUnreachable, StageFull
from swarm.terms import NodeId, short_id
from swarm.wire import TUNNEL_BYTES

ACCEPT_TIMEOUT_S = 5.0
"""How long a node may take to come for a tunnel that it was told of."""

BURST_S = 0.25
"""How much of a second's bytes may pass at once: a token's rows should not wait for a prompt's."""

QUEUED_CHUNKS = 4
"""Chunks of one direction that wait for a slow reader, 64 KiB each; then the writer waits."""


@dataclass(frozen=True, slots=True)
class RelayConfig:
    """What a node gives to others as their relay.

    n_places: nodes that may keep a place. n_tunnels: joined pairs at once, each two calls of the server's.
    n_tunnels_per_caller: of one caller. n_places_per_host, n_tunnels_per_host: of all nodes and callers at one host,
    for ids are free; several may live behind one router. rate: bytes/s of all tunnels together, counted once; 0: it is
    no relay.
    """

    n_places: int = 16
    n_tunnels: int = 48
    n_tunnels_per_caller: int = 12
    n_places_per_host: int = 8
    n_tunnels_per_host: int = 24
    rate: int = 4_000_000


@dataclass(slots=True, eq=False)
class _Tunnel:
    target: NodeId
    caller: NodeId
    host: str
    name: bytes = field(default_factory=lambda: os.urandom(TUNNEL_BYTES))
    accepted: asyncio.Event = field(default_factory=asyncio.Event)
    to_target: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue(QUEUED_CHUNKS))
    to_caller: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue(QUEUED_CHUNKS))

    def end(self) -> None:
        """Neither side waits any longer."""
        self.accepted.set()
        _end(self.to_target)
        _end(self.to_caller)


class Throttle:
    """Lets bytes pass at a rate, in the order in which they came."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._paid_until_s = 0.0

    async def take(self, n_bytes: int) -> None:
        now_s = time.monotonic()
        self._paid_until_s = max(self._paid_until_s, now_s) + n_bytes / self._rate
        wait_s = self._paid_until_s - now_s - BURST_S
        if wait_s > 0:
            await asyncio.sleep(wait_s)


class RelayHandler:
    """Serves as the relay of at most n_places nodes."""

    def __init__(self, config: RelayConfig) -> None:
        self._config = config
        self._throttle = Throttle(config.rate)
        self._places: dict[NodeId, asyncio.Queue[bytes | None]] = {}
        self._hosts: dict[NodeId, str] = {}  # of those with places; '' for this very machine
        self._tunnels: dict[bytes, _Tunnel] = {}
        self._closed = config.rate == 0

    @property
    def n_free_places(self) -> int:
        return 0 if self._closed else self._config.n_places - len(self._places)

    def close(self) -> None:
        """Take no new nodes and calls, and have those that keep a place look for another. What is joined stays so."""
        self._closed = True
        for place in self._places.values():
            _end(place)

    async def reserve(self, caller: NodeId, host: str) -> AsyncIterator[bytes]:
        others = [other for node_id, other in self._hosts.items() if node_id != caller]
        is_full = len(others) >= self._config.n_places
        if self._closed or is_full or (host and others.count(host) >= self._config.n_places_per_host):
            raise StageFull("this node is nobody else's relay now; choose another", retry_after_s=60.0)
        if (previous := self._places.get(caller)) is not None:
            _end(previous)  # the node came back, before its old connection was seen to be dead
        place = self._places[caller] = asyncio.Queue(self._config.n_tunnels)
        self._hosts[caller] = host
        try:
            yield b""
            while (name := await place.get()) is not None:
                yield name
        finally:
            if self._places.get(caller) is place:
                del self._places[caller], self._hosts[caller]
                for tunnel in self._tunnels.values() if not self._closed else ():
                    if tunnel.target == caller:
                        tunnel.end()

    async def connect(
        self, target: NodeId, data: AsyncIterator[bytes], caller: NodeId, host: str
    ) -> AsyncIterator[bytes]:
        tunnel = self._open(target, caller, host)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ACCEPT_TIMEOUT_S):
                    await tunnel.accepted.wait()
            if not tunnel.accepted.is_set() or target not in self._places:
                raise NodeUnreachable(f"node {short_id(target)} does not answer behind this relay")
            async with contextlib.aclosing(self._carry(data, tunnel.to_target, tunnel.to_caller)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            del self._tunnels[tunnel.name]
            tunnel.end()

    async def accept(self, tunnel: bytes, data: AsyncIterator[bytes], caller: NodeId) -> AsyncIterator[bytes]:
        offered = self._tunnels.get(tunnel)
        if offered is None or offered.target != caller or offered.accepted.is_set():
            raise NodeUnreachable("no such tunnel waits for this node")
        offered.accepted.set()
        try:
            async with contextlib.aclosing(self._carry(data, offered.to_caller, offered.to_target)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            offered.end()

    def _open(self, target: NodeId, caller: NodeId, host: str) -> _Tunnel:
        place = self._places.get(target)
        if place is None or self._closed:
            raise NodeUnreachable(f"node {short_id(target)} keeps no place at this relay")
        of_caller = sum(tunnel.caller == caller for tunnel in self._tunnels.values())
        of_host = sum(tunnel.host == host for tunnel in self._tunnels.values()) if host else 0
        if (
            len(self._tunnels) >= self._config.n_tunnels
            or of_caller >= self._config.n_tunnels_per_caller
            or of_host >= self._config.n_tunnels_per_host
        ):
            raise StageFull("this relay joins as many calls as it may", retry_after_s=5.0)
        if place.full():
            raise StageFull(f"node {short_id(target)} does not come for those who call it here", retry_after_s=5.0)
        tunnel = _Tunnel(target, caller, host)
        self._tunnels[tunnel.name] = tunnel
        place.put_nowait(tunnel.name)
        return tunnel

    async def _carry(
        self, data: AsyncIterator[bytes], there: asyncio.Queue[bytes | None], back: asyncio.Queue[bytes | None]
    ) -> AsyncGenerator[bytes, None]:
        """Put what one side sends `there`, and give it what comes `back`, until that ends."""
        feeding = asyncio.create_task(self._feed(data, there))
        try:
            while (chunk := await back.get()) is not None:
                yield chunk
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)

    async def _feed(self, data: AsyncIterator[bytes], there: asyncio.Queue[bytes | None]) -> None:
        try:
            async for chunk in data:
                await self._throttle.take(len(chunk))
                await there.put(chunk)
            await there.put(None)
        except BaseException:  # of a call that is over: nobody may be left to make room
            _end(there)
            raise


def _end(queue: asyncio.Queue[bytes | None]) -> None:
    """The reader has an end to come to, even where that takes the place of what it was too slow for."""
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(None)
