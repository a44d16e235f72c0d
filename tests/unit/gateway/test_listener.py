"""Whoever sends requests before they are due is heard when he leaves, and held to a bound."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import uvicorn

from swarm.gateway.listener import MAX_EARLY_BYTES, BoundedProtocol

REQUEST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"


class WaitingApp:
    """Reads each request whole, then answers once it is told to, unless the caller leaves first."""

    def __init__(self) -> None:
        self.n_begun = 0
        self.n_left = 0
        self.changed = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            pass
        self.n_begun += 1
        self.changed.set()
        leaving = asyncio.ensure_future(receive())
        answering = asyncio.ensure_future(self.may_answer.wait())
        await asyncio.wait((leaving, answering), return_when=asyncio.FIRST_COMPLETED)
        if leaving.done() and leaving.result()["type"] == "http.disconnect":
            self.n_left += 1
        else:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"ok"})
        for task in (leaving, answering):
            task.cancel()
        self.changed.set()

    async def until(self, **counts: int) -> None:
        async with asyncio.timeout(20):
            while any(getattr(self, name) != n for name, n in counts.items()):
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
async def app() -> WaitingApp:
    return WaitingApp()


@pytest.fixture
async def port(app: WaitingApp) -> AsyncIterator[int]:
    protocol: Any = partial(BoundedProtocol, head_timeout_s=60.0, max_connections=4)
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http=protocol, ws="none", lifespan="off", log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve([listening]))  # as serve() does, signals aside
    yield listening.getsockname()[1]
    server.should_exit = True
    await serving


@pytest.mark.parametrize("n_early", [0, 1, 2, 3, 10])
async def test_leaving_is_noticed_whatever_was_sent_early(n_early: int, app: WaitingApp, port: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(REQUEST)
    await app.until(n_begun=1)
    for _ in range(n_early):
        writer.write(REQUEST)
        await writer.drain()
        await asyncio.sleep(0)
    writer.close()
    await app.until(n_left=1)
    assert app.n_begun == 1


async def test_early_requests_are_answered_in_their_turn(app: WaitingApp, port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(REQUEST * 3)
    await app.until(n_begun=1)
    app.may_answer.set()
    async with asyncio.timeout(20):
        for _ in range(3):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(2) == b"ok"
    writer.close()


async def test_what_comes_early_is_bounded(app: WaitingApp, port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(REQUEST)
    await app.until(n_begun=1)
    writer.write(REQUEST * (2 * MAX_EARLY_BYTES // len(REQUEST)))
    await app.until(n_left=1)
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionResetError):  # which is an end as well
            assert await reader.read() == b""
    writer.close()


async def test_connections_beyond_the_most_are_closed_and_the_others_served(app: WaitingApp, port: int) -> None:
    kept = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
    async with asyncio.timeout(20):
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()
        app.may_answer.set()
        for reader, writer in kept:
            writer.write(REQUEST)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            writer.close()
