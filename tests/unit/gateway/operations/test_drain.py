"""A gateway that is told to stop, under its real server: what runs finishes, and what is new is refused."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
import uvicorn

from swarm.gateway.operations.asgi import Receive, Scope, Send
from swarm.gateway.operations.drain import Drain


@dataclass
class Handler:
    """An app whose answers go on until they are told to end. was_cancelled: as a session's end would notice."""

    may_end: asyncio.Event = field(default_factory=asyncio.Event)
    n_begun: int = 0
    n_cancelled: int = 0
    starts_first: bool = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/health":
            await self._start(send)
            await send({"type": "http.response.body", "body": b"ok"})
            return
        if self.starts_first:
            await self._start(send)
            await send({"type": "http.response.body", "body": b"first ", "more_body": True})
        self.n_begun += 1
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.n_cancelled += 1
            raise
        if not self.starts_first:
            await self._start(send)
        await send({"type": "http.response.body", "body": b"last"})

    async def _start(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})


@dataclass
class Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def ask(self, path: str = "/v1/x") -> None:
        self.writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())

    async def head(self) -> str:
        return (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()

    async def rest(self) -> bytes:
        """All until the server closes the connection."""
        return await self.reader.read()


@dataclass
class Served:
    port: int
    connections: list[Connection] = field(default_factory=list)

    async def connect(self) -> Connection:
        self.connections.append(Connection(*await asyncio.open_connection("127.0.0.1", self.port)))
        return self.connections[-1]

    async def asked(self, path: str = "/v1/x") -> Connection:
        connection = await self.connect()
        connection.ask(path)
        return connection


@contextlib.asynccontextmanager
async def serving(drain: Drain) -> AsyncIterator[Served]:
    config = uvicorn.Config(drain, "127.0.0.1", 0, log_config=None, lifespan="off", ws="none")  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    config.load()
    task = asyncio.ensure_future(server._serve(None))  # serve() would take the signals away
    while not server.started:
        await asyncio.sleep(0)
    served = Served(server.servers[0].sockets[0].getsockname()[1])
    try:
        async with asyncio.timeout(20):
            yield served
    finally:
        for connection in served.connections:
            connection.writer.close()
            with contextlib.suppress(OSError):
                await connection.writer.wait_closed()
        server.should_exit = True
        await task


async def begun(handler: Handler, n: int = 1) -> None:
    while handler.n_begun < n:
        await asyncio.sleep(0)


async def test_what_runs_finishes_and_what_is_new_is_refused() -> None:
    handler = Handler()
    drain = Drain(handler, bound_s=30)
    async with serving(drain) as served:
        idle = await served.connect()
        running = [await served.asked() for _ in range(3)]
        await begun(handler, 3)
        assert (drain.n_running, drain.is_draining) == (3, False)
        ended = asyncio.ensure_future(drain.wait())
        drain.begin()
        assert drain.is_draining

        idle.ask()
        head = await idle.head()
        assert head.startswith("http/1.1 503") and "retry-after: 30\r\n" in head and "connection: close\r\n" in head
        assert json.loads(await idle.rest())["error"]["code"] == "draining"
        assert (await (await served.asked("/health")).head()).startswith("http/1.1 200")
        assert not ended.done()

        handler.may_end.set()
        assert await ended
        for connection in running:
            assert (await connection.head()).startswith("http/1.1 200")
            assert b"last\r\n0\r\n\r\n" in await connection.reader.readuntil(b"0\r\n\r\n")
        assert (drain.n_running, handler.n_cancelled) == (0, 0)


async def test_an_answer_that_begins_while_draining_says_that_the_connection_ends() -> None:
    handler = Handler(starts_first=False)
    drain = Drain(handler)
    async with serving(drain) as served:
        connection = await served.asked()
        await begun(handler)
        drain.begin()
        handler.may_end.set()
        assert "connection: close\r\n" in await connection.head()
        assert await drain.wait()


@pytest.mark.parametrize("how", ["the bound is over", "told again"])
async def test_what_does_not_finish_is_cancelled_and_its_reader_sees_that_it_is_cut(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    handler = Handler()
    drain = Drain(handler, bound_s=0.05 if how == "the bound is over" else 600)
    async with serving(drain) as served:
        connection = await served.asked()
        await begun(handler)
        drain.begin()
        if how == "told again":
            drain.begin()
        assert not await drain.wait()
        assert (handler.n_cancelled, drain.n_running) == (1, 0)
        body = await connection.rest()
        assert b"first " in body
        assert not body.endswith(b"0\r\n\r\n"), "the end of a chunked body would make it look whole"
    assert "Traceback" not in caplog.text


async def test_what_has_not_begun_to_answer_is_told_why() -> None:
    handler = Handler(starts_first=False)
    drain = Drain(handler, bound_s=0.05)
    async with serving(drain) as served:
        connection = await served.asked()
        await begun(handler)
        drain.begin()
        assert not await drain.wait()
        assert (await connection.head()).startswith("http/1.1 503")
        assert b"draining" in await connection.rest()


async def test_with_nothing_running_it_is_over_at_once() -> None:
    drain = Drain(Handler())
    drain.begin()
    async with asyncio.timeout(5):
        assert await drain.wait()


async def test_another_cancellation_is_none_of_its_business() -> None:
    handler = Handler(starts_first=False)
    drain = Drain(handler)

    async def never(*_: object) -> None:
        raise AssertionError

    task = asyncio.ensure_future(drain({"type": "http", "path": "/"}, never, never))  # type: ignore[arg-type]
    await begun(handler)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert drain.n_running == 0


async def test_sigterm_begins_it() -> None:
    handler = Handler()
    drain = Drain(handler)
    drain.install([signal.SIGTERM])
    try:
        async with serving(drain) as served:
            await served.asked()
            await begun(handler)
            os.kill(os.getpid(), signal.SIGTERM)
            ended = asyncio.ensure_future(drain.wait())
            while not drain.is_draining:
                await asyncio.sleep(0)
            handler.may_end.set()
            assert await ended
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
