"""libtorrent's alerts, brought to an asyncio loop. Knows what none of them means."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any


class AlertPump:
    """Calls on_alerts(list of alerts) on the loop whenever libtorrent has some; a wake-up costs about 0.4 ms.

    An alert is dead memory once on_alerts has returned: it must copy what it needs and keep none.
    """

    def __init__(self, session: Any, on_alerts: Callable[[list[Any]], None]) -> None:
        self._session = session
        self._on_alerts = on_alerts
        # An eventfd does not work here: libtorrent writes single bytes.
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._theirs.setblocking(False)
        asyncio.get_running_loop().add_reader(self._ours, self._wake)
        session.set_alert_fd(self._theirs.fileno())

    def stop(self) -> None:
        self._session.set_alert_fd(-1)
        asyncio.get_running_loop().remove_reader(self._ours)
        self._ours.close()
        self._theirs.close()

    def _wake(self) -> None:
        try:
            while self._ours.recv(4096):
                pass
        except BlockingIOError:
            pass
        self._on_alerts(self._session.pop_alerts())
