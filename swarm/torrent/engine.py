"""libtorrent's session object: how it is made, and where it came to listen."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import libtorrent as lt

from swarm.errors import ListenError
from swarm.terms import Address
from swarm.torrent.config import TorrentConfig, session_settings
from swarm.torrent.reach import fence

_LISTEN_TIMEOUT_S = 10.0


def make_engine(config: TorrentConfig, listen: Address) -> Any:
    """A libtorrent session that listens on `listen`, fenced in where the config says so."""
    category = lt.alert_category
    mask = category.error | category.status | category.storage | category.tracker | category.connect
    mask |= category.peer | category.piece_progress | category.dht_operation
    mask |= category.port_mapping
    params = lt.session_params()
    settings: Any = session_settings(config, listen, mask)
    params.settings = settings
    # The only backend that has neither hung at teardown after a full disk nor shown stale bytes to other readers.
    params.disk_io_constructor = "posix_disk_io_constructor"
    session = lt.session(params)
    fence(session, config)
    return session


def kinds_of_sockets(config: TorrentConfig) -> frozenset[str]:
    """What libtorrent listens on. Behind a proxy nobody can dial us: no TCP then, and UDP for the proxy's sake."""
    return frozenset(("tcp", "udp") if config.proxy is None else ("udp",))


class Listening:
    """Waits for the ports that were asked for."""

    def __init__(self) -> None:
        self._bound: dict[str, int] = {}
        self._fault: str | None = None
        self._news = asyncio.Event()

    def on_alert(self, alert: Any) -> bool:
        """Whether the alert is about listening."""
        if isinstance(alert, lt.listen_succeeded_alert):
            self._bound["tcp" if alert.socket_type == lt.socket_type_t.tcp else "udp"] = alert.port
        elif isinstance(alert, lt.listen_failed_alert):
            self._fault = self._fault or alert.error.message()
        else:
            return False
        self._news.set()
        return True

    async def port(self, listen: Address, kinds: frozenset[str]) -> int:
        """The port, once all of these kinds (tcp, udp) have it. Raises: ListenError."""
        deadline = time.monotonic() + _LISTEN_TIMEOUT_S
        while not kinds <= self._bound.keys():
            left_s = deadline - time.monotonic()
            if self._fault is not None or left_s <= 0:
                fault = self._fault or "no answer from the system"
                raise ListenError(f"{listen} cannot be listened on: {fault}; choose another port or host")
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._news.wait()
        return self._bound.get("tcp") or self._bound["udp"]
