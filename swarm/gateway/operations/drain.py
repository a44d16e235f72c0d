"""How a gateway stops: it takes nothing new, lets what runs finish within a bound, then ends what is left.

Does NOT close sockets or the process: whoever runs the server does, once wait() is over. Plain ASGI middleware; signals
only where install() is called.
"""

from __future__ import annotations

import asyncio
import logging
import math
import signal
from collections.abc import Iterable

from swarm.gateway.operations.asgi import ASGIApp, Message, Receive, Scope, Send, send_error

logger = logging.getLogger(__name__)

ALWAYS_ANSWERED = frozenset({"/health", "/ready", "/metrics"})
"""What is asked while draining: whether it lives, that it is not ready, and what is left."""


class Drain:
    """ASGI middleware that knows which requests run. begin() it once, then wait().

    bound_s: how long answers that run may go on; more keeps a stopping process about for longer.
    While draining, new requests are answered with 503, Retry-After and Connection: close, and so is a connection that
    was kept alive. What still runs when the bound is over, or when begin() is called once more, is cancelled, which
    ends its session on every stage.
    """

    def __init__(self, app: ASGIApp, *, bound_s: float = 30.0) -> None:
        self._app = app
        self._bound_s = bound_s
        self._running: set[asyncio.Task[object]] = set()
        self._ended: set[asyncio.Task[object]] = set()
        self._began = asyncio.Event()
        self._hurried = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def is_draining(self) -> bool:
        return self._began.is_set()

    @property
    def n_running(self) -> int:
        """Requests that are being answered, the always answered ones aside."""
        return len(self._running)

    def begin(self) -> None:
        """Take nothing new from now on. Called again: end what runs at once."""
        if self._began.is_set():
            self._hurried.set()
            return
        logger.info("draining: %d requests run, for %g s at most", self.n_running, self._bound_s)
        self._began.set()

    def install(self, signals: Iterable[signal.Signals] = (signal.SIGTERM, signal.SIGINT)) -> None:
        """begin() at each of these signals, on the running loop. A second one hurries."""
        loop = asyncio.get_running_loop()
        for number in signals:
            loop.add_signal_handler(number, self.begin)

    async def wait(self) -> bool:
        """Return once draining began and nothing runs any more: True if all of it finished by itself."""
        await self._began.wait()
        waits = {asyncio.ensure_future(event.wait()) for event in (self._idle, self._hurried)}
        try:
            await asyncio.wait(waits, timeout=self._bound_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        left = set(self._running)
        if not left:
            return True
        logger.warning("draining is over with %d requests unfinished: they end now", len(left))
        self._ended |= left
        for task in left:
            task.cancel()
        await self._idle.wait()
        return False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in ALWAYS_ANSWERED:
            await self._app(scope, receive, send)
            return
        if self.is_draining:
            await self._refuse(send)
            return
        await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        self._idle.clear()
        has_begun = False

        async def send_closing(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                if self.is_draining:
                    message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        try:
            await self._app(scope, receive, send_closing)
        except asyncio.CancelledError:
            if task not in self._ended:
                raise
            task.uncancel()
            if not has_begun:
                await self._refuse(send)  # one that has begun is cut off: its reader must not take it for whole
        finally:
            self._ended.discard(task)
            self._running.discard(task)
            if not self._running:
                self._idle.set()

    async def _refuse(self, send: Send) -> None:
        retry_after_s = str(max(1, math.ceil(self._bound_s)))
        headers = ((b"retry-after", retry_after_s.encode()), (b"connection", b"close"))
        message = f"this gateway is about to stop; try again in {retry_after_s} s"
        await send_error(send, 503, "draining", message, headers)
