"""A clock that tests move, and a way to ask an ASGI app without a socket."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from swarm.gateway.operations.asgi import ASGIApp, Message


@dataclasses.dataclass
class Clock:
    """Called for the time, in seconds."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclasses.dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


Ask = Callable[..., Awaitable[Answer]]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ask() -> Ask:
    """await ask(app, path, method=…, headers={…}): the app's whole answer. Headers may be a list of pairs."""

    async def ask_app(
        app: ASGIApp,
        path: str = "/",
        method: str = "GET",
        headers: Mapping[str, str] | list[tuple[str, str]] = (),  # type: ignore[assignment]
    ) -> Answer:
        pairs = headers.items() if isinstance(headers, Mapping) else headers
        scope: dict[str, Any] = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": b"prompt=secret",
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in pairs],
            "client": ("127.0.0.1", 50000),
        }
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        await app(scope, receive, send)
        start, *bodies = sent
        assert start["type"] == "http.response.start"
        answered = {name.decode().lower(): value.decode("latin-1") for name, value in start["headers"]}
        return Answer(start["status"], answered, b"".join(message.get("body", b"") for message in bodies))

    return ask_app
