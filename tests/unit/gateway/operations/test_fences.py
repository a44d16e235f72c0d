"""Which pages get an answer: our own, the listed ones, and every program that is no browser."""

from __future__ import annotations

import json
from typing import Any

import pytest

from swarm.errors import BadArgument
from swarm.gateway.operations.asgi import Message, Receive, Scope, Send
from swarm.gateway.operations.fences import Fence, FenceConfig

LISTED = "https://chat.example.org"
CONFIG = FenceConfig(hosts=("gateway.example.org", "nas.lan:8000"), origins=(LISTED, "http://localhost:3000"))


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"inside"})


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8000",
        "LOCALHOST:1",
        "chat.localhost",
        "localhost.",
        "127.0.0.1:8000",
        "192.0.2.7",
        "[::1]:8000",
        "[2001:db8::1]",
        "gateway.example.org",
        "GATEWAY.example.org:443",
        "nas.lan",
        "nas.lan:80",
    ],
)
async def test_our_own_names_and_any_address_are_answered(ask: Any, host: str) -> None:
    answer = await ask(Fence(app, CONFIG), headers={"Host": host})
    assert (answer.status, answer.body) == (200, b"inside")
    assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Host", "")],
        [("Host", "evil.example")],
        [("Host", "evil.example:8000")],
        [("Host", "127.0.0.1.evil.example")],
        [("Host", "localhost.evil.example")],
        [("Host", "evillocalhost")],
        [("Host", "gateway.example.org.evil.example")],
        [("Host", "sub.gateway.example.org")],
        [("Host", "localhost@evil.example")],
        [("Host", "localhost, evil.example")],
        [("Host", "localhost/evil")],
        [("Host", "localhost:8000:1")],
        [("Host", "[::1")],
        [("Host", "0x7f.1")],
        [("Host", "localhost"), ("Host", "evil.example")],
    ],
    ids=str,
)
async def test_a_rebound_name_is_refused_with_the_mend(ask: Any, headers: list[tuple[str, str]]) -> None:
    answer = await ask(Fence(app, CONFIG), headers=headers)
    assert answer.status == 421
    assert "--host NAME" in json.loads(answer.body)["error"]["message"]


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("gateway.example.org", "https://gateway.example.org"),  # TLS ended before us
        ("gateway.example.org", "http://gateway.example.org:80"),
        ("gateway.example.org:443", "https://GATEWAY.example.org"),
    ],
)
async def test_our_own_pages_are_answered(ask: Any, host: str, origin: str) -> None:
    answer = await ask(Fence(app, CONFIG), "/v1/x", "POST", {"Host": host, "Origin": origin})
    assert (answer.status, "access-control-allow-origin" in answer.headers) == (200, False)


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "https://evil.example",
        "http://localhost:8001",  # another program of this machine
        "https://localhost",
        "http://127.0.0.1:8000",
        "http://chat.example.org",  # listed with https only
        "https://chat.example.org:8443",
        "https://chat.example.org.evil.example",
        "https://evil.example#https://chat.example.org",
        "https://user@chat.example.org",
        "file://",
        "chrome-extension://abc",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
async def test_other_pages_are_refused_and_learn_nothing(ask: Any, origin: str, method: str) -> None:
    headers = {"Host": "localhost:8000", "Origin": origin, "Access-Control-Request-Method": "POST"}
    answer = await ask(Fence(app, CONFIG), "/v1/models", method, headers)
    assert answer.status == 403
    assert not any(name.startswith("access-control") for name in answer.headers)
    assert "--cors ORIGIN" in json.loads(answer.body)["error"]["message"]


async def test_two_origins_are_none(ask: Any) -> None:
    headers = [("Host", "localhost"), ("Origin", LISTED), ("Origin", "https://evil.example")]
    assert (await ask(Fence(app, CONFIG), headers=headers)).status == 403


@pytest.mark.parametrize("origin", [LISTED, "HTTPS://Chat.example.org:443", "http://localhost:3000"])
async def test_a_listed_page_reads_the_answer(ask: Any, origin: str) -> None:
    answer = await ask(Fence(app, CONFIG), "/v1/models", headers={"Host": "localhost:8000", "Origin": origin})
    assert (answer.status, answer.body) == (200, b"inside")
    assert answer.headers["access-control-allow-origin"] == origin
    assert answer.headers["vary"] == "origin"
    assert "x-request-id" in answer.headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in answer.headers


async def test_a_listed_pages_preflight_is_answered_here(ask: Any) -> None:
    asked = "authorization,content-type,x-stainless-lang"
    headers = {
        "Host": "localhost:8000",
        "Origin": LISTED,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": asked,
        "Access-Control-Request-Private-Network": "true",
    }
    answer = await ask(Fence(app, CONFIG), "/v1/chat/completions", "OPTIONS", headers)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-headers"] == asked
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-private-network"] == "true"


async def test_a_listed_page_is_fenced_by_host_all_the_same(ask: Any) -> None:
    assert (await ask(Fence(app, CONFIG), headers={"Host": "evil.example", "Origin": LISTED})).status == 421


async def test_a_star_lets_every_page_in_but_no_rebound_name(ask: Any) -> None:
    fence = Fence(app, FenceConfig(origins=("*",)))
    answer = await ask(fence, headers={"Host": "localhost", "Origin": "https://anyone.example"})
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, "https://anyone.example")
    assert (await ask(fence, headers={"Host": "evil.example"})).status == 421


async def test_by_default_no_other_page_is_let_in(ask: Any) -> None:
    assert (await ask(Fence(app), headers={"Host": "localhost", "Origin": LISTED})).status == 403


async def test_websockets_are_closed_and_lifespan_passes() -> None:
    sent: list[Message] = []
    scopes: list[str] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope["type"])

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    await Fence(inner)({"type": "websocket", "headers": [(b"host", b"localhost")]}, receive, send)
    await Fence(inner)({"type": "lifespan"}, receive, send)
    assert ([message["type"] for message in sent], scopes) == (["websocket.close"], ["lifespan"])


@pytest.mark.parametrize("wrong", ["", "a b", "http://a", "a/b", "*"])
def test_a_host_that_is_none(wrong: str) -> None:
    with pytest.raises(BadArgument, match="not a host name"):
        FenceConfig(hosts=(wrong,))


@pytest.mark.parametrize("wrong", ["", "null", "a.example", "https://a.example/", "https://*.example", "ftp://a"])
def test_an_origin_that_is_none(wrong: str) -> None:
    with pytest.raises(BadArgument, match="not an origin"):
        FenceConfig(origins=(wrong,))
