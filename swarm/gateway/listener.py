"""uvicorn's HTTP/1.1 protocol, bounded: in connections, in what a request's head may take of time and room, in what is
early, and in how long an answer waits for a caller who takes none of it.

Without bounds on heads a caller could open connections, send a byte now and then, or bytes without an end, and hold
them for ever. And a connection that sends its next request while one is answered would not be read any more, so that
its end would go unnoticed, and the answer on for nobody: it is read on here, up to a bound.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

MAX_HEAD_BYTES = 64 << 10
"""Of a request's line and headers, of the lines between a body's chunks, and of what follows a body's last."""

MAX_EARLY_BYTES = 64 << 10
"""Of requests that come before the answer to the one before them. Nobody who waits for answers sends any."""

MAX_EARLY_REQUESTS = 64
"""The same, of those that are read in one piece with it: each takes some kilobytes, however short it is. The first one
beyond is where the reading ends.
"""

LEAST_READ_BYTES = 64
"""A read of fewer counts as so many against the bounds above: each costs a turn of the loop, and the parser copies a
line as often as more of it comes, so that bytes one by one would cost as much as their number squared.
"""

STALLED_S = 60.0
"""How long a caller may take nothing of what waits to go out to it. A connection that is closed keeps its place until
all of that was taken, and an answer waits for ever.
"""


class TooManyEarly(Exception):
    """More requests came in one piece than are read ahead."""


class BoundedProtocol(HttpToolsProtocol):
    """Closes a connection that takes longer than head_timeout_s over a request's head, or more than MAX_HEAD_BYTES, or
    that sends more than MAX_EARLY_BYTES past the request that is being answered; and at once, one beyond
    max_connections of this server. Breaks one off whose caller takes nothing for STALLED_S.

    The time is counted from the head's first byte, and for the first request from the connection's beginning.
    turns: in which this server's connections begin their requests.
    """

    def __init__(
        self, *arguments: Any, head_timeout_s: float, max_connections: int, turns: Turns, **named: Any
    ) -> None:
        super().__init__(*arguments, **named)
        self._turns = turns
        self._max_connections = max_connections
        self._head_timeout_s = head_timeout_s
        self._head_timer: asyncio.TimerHandle | None = None
        self._answering: RequestResponseCycle | None = None  # self.cycle may be a later one already
        self._is_in_head = False
        self._n_since_progress = 0  # bytes that brought neither the end of a head nor a part of a body
        self._early = bytearray()
        self._n_early = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._patience = Patience(transport, self.loop)
        super().connection_made(cast(asyncio.Transport, HeadWithBody(transport, self.loop, self._patience)))
        if len(self.connections) > self._max_connections:
            transport.abort()  # file descriptors are left for the nodes, the ledger and those who are being answered
        self._await_head()

    def data_received(self, data: bytes) -> None:
        if self._is_answering_all_read:
            self._early += data
            self._n_early += max(len(data), LEAST_READ_BYTES)
            if self._n_early > MAX_EARLY_BYTES:
                self.transport.abort()
            return
        self._n_since_progress += max(len(data), LEAST_READ_BYTES)
        super().data_received(data)
        if self._n_since_progress > MAX_HEAD_BYTES:
            self.transport.abort()
        if self.transport.is_closing():
            return
        if self._is_answering_all_read:
            self.flow.resume_reading()  # only a connection that is read tells when it ends
        if not self._is_answering:
            if self._head_timer is None:
                self._await_head()
        elif self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
        if self._answering is not None and self._is_answering:
            self._answering.disconnected = True
            self._answering.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)
        self._patience.end()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._patience.begin()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._patience.end()
        if self.transport.is_closing():
            self._patience.begin()  # the rest has to go out too

    # -- what the parser finds -----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._is_in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Headers that follow a body are none of the request's: nothing looked at them when it was let in."""
        if self._is_in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._n_since_progress = 0
        if len(self.pipeline) >= MAX_EARLY_REQUESTS:
            self.transport.abort()
            raise TooManyEarly  # the parser goes no further
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._n_since_progress = 0
        super().on_body(body)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._early and not self._is_answering_all_read and not self.transport.is_closing():
            data, self._early, self._n_early = bytes(self._early), bytearray(), 0
            self.data_received(data)

    def send_400_response(self, msg: str) -> None:
        if self._is_answering:
            self.transport.abort()  # it would come in the middle of an answer
        else:
            super().send_400_response(msg)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        self._turns.take(partial(super()._start_asgi_task, cycle, app))

    # -- the time that a head takes ------------------------------------------------------------------------------------

    @property
    def _is_answering(self) -> bool:
        return self._answering is not None and not self._answering.response_complete

    @property
    def _is_answering_all_read(self) -> bool:
        """Whether what comes now belongs to a later request than the one that is being answered."""
        return self._answering is not None and not (self._answering.response_complete or self._answering.more_body)

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self._head_timeout_s, self._give_up)

    def _give_up(self) -> None:
        self._head_timer = None
        if not self._is_answering:
            self.transport.close()


class Turns:
    """Requests begin one at a time, each time that the loop comes round: of a rush the first are on their way to the
    swarm while the last are still being read, and not all of them once the last was.
    """

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()

    def take(self, begin: Callable[[], None]) -> None:
        """Have it called, after those that came before."""
        self._waiting.append(begin)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        begin = self._waiting.popleft()
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._next)
        begin()


class Patience:
    """Breaks a connection off of whose waiting bytes none go out for STALLED_S, from begin() until end()."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._n_waiting = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        if self._timer is None:
            self._look_later()

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_later(self) -> None:
        self._n_waiting = self._transport.get_write_buffer_size()
        self._timer = self._loop.call_later(STALLED_S, self._look) if self._n_waiting else None

    def _look(self) -> None:
        if self._transport.get_write_buffer_size() >= self._n_waiting:
            self._transport.abort()
        else:
            self._look_later()


class HeadWithBody:
    """A transport that keeps an answer's head back until the loop comes round: what is written by then goes out with
    it, in one call of the system in place of two. patience: with who does not take the rest of it once it is closed.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, patience: Patience) -> None:
        self._transport = transport
        self._loop = loop
        self._patience = patience
        self._head = b""

    def write(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(b"HTTP/1.1 "):
            self._head = data
            self._loop.call_soon(self._flush)
            return
        self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()
        self._patience.begin()

    def _flush(self) -> None:
        if self._head:
            data, self._head = self._head, b""
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
