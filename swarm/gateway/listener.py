"""uvicorn's HTTP/1.1 protocol, bounded: in connections, in the time that a request's head may take, in what is early.

Without the second a caller could open connections, send a byte now and then, and hold them for ever. And a connection
that sends its next request while one is answered would not be read any more, so that its end would go unnoticed, and
the answer on for nobody: it is read on here, up to a bound.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_EARLY_BYTES = 64 << 10
"""Of requests that come before the answer to the one before them. Nobody who waits for answers sends any."""


class BoundedProtocol(H11Protocol):
    """Closes a connection that takes longer than head_timeout_s over a request's head, or that sends more than
    MAX_EARLY_BYTES past the request that is being answered; and at once, one beyond max_connections of this server.

    The time is counted from the head's first byte, and for the first request from the connection's beginning.
    """

    def __init__(self, *arguments: Any, head_timeout_s: float, max_connections: int, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._max_connections = max_connections
        self._head_timeout_s = head_timeout_s
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._max_connections:
            transport.abort()  # file descriptors are left for the nodes, the ledger and those who are being answered
        self._await_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_serving and not self.cycle.more_body:
            self._read_on()
        if not self._is_serving:
            if self._head_timer is None:
                self._await_head()
        elif self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
        super().connection_lost(exc)

    @property
    def _is_serving(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _read_on(self) -> None:
        """Only a connection that is read tells when it ends."""
        if len(self.conn.trailing_data[0]) > MAX_EARLY_BYTES:
            self.transport.abort()
        else:
            self.flow.resume_reading()

    def _await_head(self) -> None:
        self._head_timer = asyncio.get_running_loop().call_later(self._head_timeout_s, self._give_up)

    def _give_up(self) -> None:
        self._head_timer = None
        if not self._is_serving:
            self.transport.close()
