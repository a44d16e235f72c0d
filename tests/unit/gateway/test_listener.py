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

from swarm.gateway import listener
from swarm.gateway.listener import (
    LEAST_READ_BYTES,
    MAX_EARLY_BYTES,
    MAX_EARLY_REQUESTS,
    MAX_HEAD_BYTES,
    BoundedProtocol,
    Turns,
)

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
    async with listening(app) as port:
        yield port


@contextlib.asynccontextmanager
async def listening(app: Any, kind: type[BoundedProtocol] = BoundedProtocol) -> AsyncIterator[int]:
    """A server's port, of at most 4 connections."""
    protocol: Any = partial(kind, head_timeout_s=60.0, max_connections=4, turns=Turns())
    bound = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http=protocol, ws="none", lifespan="off", log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve([bound]))  # as serve() does, signals aside
    yield bound.getsockname()[1]
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


async def test_requests_that_come_with_the_one_before_them_are_bounded(app: WaitingApp, port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * (2 + MAX_EARLY_REQUESTS))
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
    writer.close()
    assert app.n_begun <= 1


async def test_no_request_is_read_beyond_the_most_that_may_come_early(app: WaitingApp) -> None:
    """Whatever comes in the same piece: each would be some kilobytes."""
    n_heads = 0

    class Counting(BoundedProtocol):
        def on_headers_complete(self) -> None:
            nonlocal n_heads
            super().on_headers_complete()
            n_heads += 1

    async with listening(app, Counting) as port, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n" * 3000)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
    assert 1 <= n_heads <= 1 + MAX_EARLY_REQUESTS


@pytest.mark.parametrize(
    "begun", [b"GET /", b"GET / HTTP/1.1\r\nHost: a\r\nX: ", REQUEST], ids=["path", "header", "early"]
)
async def test_bytes_one_by_one_are_bounded_by_their_number(begun: bytes, app: WaitingApp, port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(begun)
    await app.until(n_begun=int(begun == REQUEST))
    n_sent = 0
    async with asyncio.timeout(60):
        with contextlib.suppress(ConnectionError):
            while not reader.at_eof():
                writer.write(b"x")
                n_sent += 1
                await writer.drain()
                await asyncio.sleep(0)
                assert n_sent < MAX_HEAD_BYTES // 4
    writer.close()
    assert n_sent >= MAX_HEAD_BYTES // LEAST_READ_BYTES, "a short head may come in as many pieces as it has bytes"


async def test_leaving_is_noticed_where_the_next_request_came_in_one_piece(app: WaitingApp, port: int) -> None:
    """Also where it came in part only."""
    for n_left, early in enumerate((REQUEST, REQUEST[:-1], REQUEST[:20], REQUEST * 3), start=1):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(REQUEST + early)
        await app.until(n_begun=n_left)
        writer.close()
        await app.until(n_left=n_left)


async def test_a_request_in_any_pieces_is_answered_after_the_one_before_it(app: WaitingApp, port: int) -> None:
    app.may_answer.set()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(60):
        for cut in range(1, len(REQUEST)):
            writer.write(REQUEST + REQUEST[:cut])
            await asyncio.sleep(0)
            writer.write(REQUEST[cut:])
            for _ in range(2):
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
                assert await reader.readexactly(2) == b"ok"
    writer.close()
    assert app.n_begun == 2 * (len(REQUEST) - 1)


@pytest.mark.parametrize(
    "begun",
    [
        b"GET /",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: ",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ",
    ],
)
async def test_what_has_no_end_is_bounded(begun: bytes, port: int) -> None:
    """A path, a header, a chunk's extension, a header behind the body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(begun)
    n_sent = 0
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionError):
            while not reader.at_eof():
                writer.write(b"x" * 4096)
                n_sent += 4096
                await writer.drain()
                await asyncio.sleep(0)
                assert n_sent < 64 * MAX_HEAD_BYTES  # what both ends' sockets hold is more than is read
    writer.close()


async def test_headers_behind_a_body_are_none_of_the_request_s() -> None:
    seen: list[list[tuple[bytes, bytes]]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            pass
        seen.append(list(scope["headers"]))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async with listening(app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head + b"2\r\n{}\r\n0\r\nAuthorization: Bearer x\r\n\r\n")
        async with asyncio.timeout(20):
            assert b" 200 " in await reader.readline()
        writer.close()
    assert [name for name, _ in seen[0]] == [b"host", b"transfer-encoding"]


async def test_what_is_no_http_gets_no_word_into_the_middle_of_an_answer() -> None:
    """It ends the connection instead, as leaving does."""
    left = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        left.set()

    async with listening(app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        async with asyncio.timeout(20):
            assert (await reader.readuntil(b"begun\r\n")).startswith(b"HTTP/1.1 200")
            writer.write(b"what is this?\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            await left.wait()
        writer.close()


async def test_an_answer_s_head_does_not_wait_for_its_body() -> None:
    may_end = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await may_end.wait()
        await send({"type": "http.response.body", "body": b"ok"})

    async with listening(app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        async with asyncio.timeout(20):
            await reader.readuntil(b"\r\n\r\n")
            may_end.set()
            assert await reader.readexactly(2) == b"ok"
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


@pytest.mark.parametrize("n_parts", [1, 1000])
async def test_who_takes_nothing_of_an_answer_is_broken_off(n_parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the answer waits for him, or is written whole and its connection waits to be closed."""
    monkeypatch.setattr(listener, "STALLED_S", 0.2)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        n = n_parts if scope["path"] == "/much" else 0
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        for _ in range(n):
            await send({"type": "http.response.body", "body": bytes(16 << 20), "more_body": True})
        await send({"type": "http.response.body", "body": b"all"})

    async with listening(app) as port, asyncio.timeout(20):
        stalled = [socket.create_connection(("127.0.0.1", port)) for _ in range(4)]
        for one in stalled:
            one.sendall(b"GET /much HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = b""
        while not answer.startswith(b"HTTP/1.1 200"):  # all four places are taken until then
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            answer = b""
            with contextlib.suppress(ConnectionResetError):
                answer = await reader.read()
            writer.close()
        for one in stalled:
            one.close()
