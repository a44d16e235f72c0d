"""The DHT as a meeting place: put an address under a key, find the addresses under it. Knows nothing of torrents.

libtorrent says nothing when a look-up misses, never fills its table from bootstrap nodes alone, and overflows its UDP
buffer with too many queries at once; this module makes up for all three.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from typing import Any

import libtorrent as lt

from swarm.errors import BadArgument, LocalProtocolError
from swarm.terms import Address, counted
from swarm.torrent.config import TorrentConfig

_MAX_IN_FLIGHT = 16
_KEY_BYTES = 20
_ASK_AGAIN_S = 1.0
_FILL_FOR_S = 10.0


class Rendezvous:
    """DHT announcements and look-ups of one libtorrent session.

    settle_s: how long after its first answer a look-up goes on collecting.
    n_nodes: DHT nodes in the routing table, as of the last second.
    """

    def __init__(self, session: Any, settle_s: float) -> None:
        self._session = session
        self._settle_s = settle_s
        self._slots = asyncio.Semaphore(_MAX_IN_FLIGHT)
        self._found: dict[str, set[Address]] = {}
        self._n_waiting: dict[str, int] = {}
        self._news = asyncio.Event()
        self._fill_until_s = 0.0
        self.n_nodes = 0
        self._given: set[tuple[str, int]] = set()

    def add_nodes(self, endpoints: list[tuple[str, int]]) -> None:
        """Make these known, and ask around until the routing table knows others through them."""
        for endpoint in endpoints:
            self._session.add_dht_node(endpoint)
        if new := set(endpoints) - self._given:
            self._given |= new
            self._fill_until_s = time.monotonic() + _FILL_FOR_S
            self._session.dht_get_peers(lt.sha1_hash(os.urandom(_KEY_BYTES)))

    @property
    def n_given(self) -> int:
        """DHT nodes that callers have named."""
        return len(self._given)

    async def announce(self, key: bytes, port: int, timeout_s: float) -> bool:
        """Store this host's address with `port` under the key. False when no DHT node was known within timeout_s.

        The entry appears within 0.1 s where all nodes answer, and lasts 45 min unless announced again.
        """
        target = _target(key)
        if not 1 <= port <= 65535:
            raise BadArgument(f"port {port} cannot be announced; it must be between 1 and 65535")
        async with self._slots:
            deadline = time.monotonic() + timeout_s
            while self.n_nodes == 0:
                if (left_s := deadline - time.monotonic()) <= 0:
                    return False
                self._session.post_dht_stats()
                await self._next_news(min(left_s, 0.1))
            self._session.dht_announce(target, port, 0)
        return True

    async def look_up(self, key: bytes, timeout_s: float) -> set[Address]:
        """Every address found under the key; the empty set when nobody answered within timeout_s."""
        target, name = _target(key), key.hex()
        deadline = time.monotonic() + timeout_s
        async with self._slots:
            found = self._found.setdefault(name, set())
            self._n_waiting[name] = self._n_waiting.get(name, 0) + 1
            try:
                ask_at_s = 0.0
                while (now_s := time.monotonic()) < deadline:
                    if now_s >= ask_at_s:
                        self._session.dht_get_peers(target)
                        ask_at_s = now_s + _ASK_AGAIN_S
                    n_found = len(found)
                    await self._next_news(min(deadline, ask_at_s) - now_s)
                    if n_found == 0 and found:
                        deadline = min(deadline, time.monotonic() + self._settle_s)
                return set(found)
            finally:
                self._n_waiting[name] -= 1
                if self._n_waiting[name] == 0:
                    del self._n_waiting[name], self._found[name]

    def on_peers(self, alert: Any) -> None:
        found = self._found.get(str(alert.info_hash))
        if found is not None:
            found.update(Address(host, port) for host, port in alert.peers() if port)
            self._announce_news()

    def on_stats(self, alert: Any) -> bool:
        """True when the table has grown to another magnitude: what was announced before went to too few nodes."""
        n_nodes = sum(bucket["num_nodes"] for bucket in alert.routing_table)
        grown = n_nodes.bit_length() > self.n_nodes.bit_length()
        # The same number is no news: whoever waits for a first node asks again when woken, and would spin.
        is_news = n_nodes != self.n_nodes
        self.n_nodes = n_nodes
        if is_news:
            self._announce_news()
        return grown

    def describe(self, config: TorrentConfig) -> str:
        """How many nodes answer, for error messages."""
        n_given = self.n_given + (len(config.dht_bootstrap) if not config.loopback_only else 0)
        if not self.n_nodes and not n_given:
            return "no node given or known"
        return f"{counted(self.n_nodes, 'node')} known to answer, {n_given} given"

    def tick(self) -> None:
        """Once per second."""
        self._session.post_dht_stats()
        if time.monotonic() < self._fill_until_s:
            self._session.dht_get_peers(lt.sha1_hash(os.urandom(_KEY_BYTES)))

    def _announce_news(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _next_news(self, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._news.wait()


def _target(key: bytes) -> Any:
    if len(key) != _KEY_BYTES:
        raise LocalProtocolError(f"a DHT key has {_KEY_BYTES} bytes, not {len(key)}")
    return lt.sha1_hash(key)
