"""Answers on one HTTP connection, as plain ASGI: whole ones, streams, errors, and the moment when the caller leaves.

A stream's status is not sent before its first piece is there, so that what cannot even begin is answered as an error
with a status of its own. Source: ASGI specification 3.0, HTTP 2.4.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import Any

from starlette.types import Message, Receive, Send

from swarm.gateway.bodies import ClientGone

Headers = tuple[tuple[bytes, bytes], ...]

DONE = b"data: [DONE]\n\n"
"""What every stream of events ends with, in both dialects."""

SEND_TIMEOUT_S = 60.0
"""How long a reader may take nothing at all: until it does, its sessions hold their place on every stage."""


async def send_json(send: Send, status: int, body: Mapping[str, Any], headers: Mapping[str, str]) -> None:
    await send_bytes(send, status, json.dumps(body).encode(), header_pairs(headers))


async def send_bytes(send: Send, status: int, body: bytes, headers: Headers = ()) -> None:
    """A whole JSON answer. Raises: ClientGone."""
    described = ((b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()))
    async with Reader(send) as reader:
        await reader.send({"type": "http.response.start", "status": status, "headers": [*described, *headers]})
        await reader.send({"type": "http.response.body", "body": body})


async def send_events(send: Send, events: AsyncGenerator[bytes, None], headers: Headers = ()) -> None:
    """Server-sent events as they come; one that ends with DONE is the last. Raises: whatever `events` raises before its
    first; ClientGone.
    """
    described = (
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-cache"),
        (b"x-accel-buffering", b"no"),
    )
    async with Reader(send) as reader, aclosing(events):
        has_begun, goes_on = False, True
        async for event in events:
            if not has_begun:
                await reader.send({"type": "http.response.start", "status": 200, "headers": [*described, *headers]})
                has_begun = True
            goes_on = not event.endswith(DONE)
            await reader.send({"type": "http.response.body", "body": event, "more_body": goes_on})
        if goes_on:
            await reader.send({"type": "http.response.body", "body": b""})


class Reader:
    """Whoever takes an answer: every message waits until those before it were taken, and who takes none is given up.

    Async context manager around one answer. One timer looks after all of its messages, since there is one for every
    token: a reader is given up after SEND_TIMEOUT_S, and half as long again at most.
    Raises: ClientGone, from the context.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._since_s: float | None = None  # when the message that is being sent was begun
        self._timeout = asyncio.timeout(None)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    async def send(self, message: Message) -> None:
        self._since_s = self._loop.time()
        await self._send(message)
        self._since_s = None

    async def __aenter__(self) -> Reader:
        await self._timeout.__aenter__()
        self._look_again()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            raise ClientGone from None

    def _look_again(self) -> None:
        self._timer = self._loop.call_later(SEND_TIMEOUT_S / 2, self._look)

    def _look(self) -> None:
        now_s = self._loop.time()
        if self._since_s is not None and now_s - self._since_s >= SEND_TIMEOUT_S:
            self._timeout.reschedule(now_s)
        else:
            self._look_again()


async def unless_gone(receive: Receive, answering: Coroutine[Any, Any, None]) -> None:
    """Answer for as long as somebody listens: when the caller leaves, the answering is cancelled, and ends first.

    Raises: ClientGone, and whatever the answering raises.
    """
    task = asyncio.current_task()
    assert task is not None
    is_gone = False

    async def watch() -> None:
        nonlocal is_gone
        while (await receive())["type"] != "http.disconnect":
            pass
        is_gone = True
        task.cancel()

    watching = asyncio.create_task(watch())
    try:
        await answering
    except asyncio.CancelledError:
        if not is_gone:
            raise
    finally:
        watching.cancel()
    if is_gone:
        task.uncancel()
        raise ClientGone


def header_pairs(headers: Mapping[str, str]) -> Headers:
    return tuple((name.lower().encode(), value.encode("latin-1", "replace")) for name, value in headers.items())
