"""Each request has one id and one line, and no line can be forged or holds what was asked."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest

from swarm.gateway.operations.asgi import Message, Receive, Scope, Send
from swarm.gateway.operations.logs import RequestLog, RequestRecord, log_as_json, note_fields, note_handler, request_id

MADE = re.compile(r"req-[0-9a-f]{32}")


@pytest.fixture
def lines() -> Iterator[Any]:
    """The log's lines so far, parsed."""
    stream = io.StringIO()
    handler = log_as_json(stream=stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logging.getLogger("swarm").removeHandler(handler)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    note_handler("/v1/models/{id}")
    note_fields(model="m", tokens_out=3)
    logging.getLogger("swarm.gateway.test").info("at work")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"X-Request-Id", b"the app's own")]})
    await send({"type": "http.response.body", "body": b"ab", "more_body": True})
    await send({"type": "http.response.body", "body": b"c"})


async def test_a_request_is_one_line_and_its_id_is_everywhere(ask: Any, lines: Any, clock: Any) -> None:
    done: list[RequestRecord] = []
    answer = await ask(RequestLog(app, on_done=done.append, clock=clock), "/v1/models/m", "POST")
    inner, outer = lines()
    assert MADE.fullmatch(answer.headers["x-request-id"])
    assert inner["request_id"] == outer["request_id"] == answer.headers["x-request-id"] == done[0].request_id
    assert inner["message"] == "at work"
    wanted = {"method": "POST", "path": "/v1/models/m", "handler": "/v1/models/{id}", "status": 200, "sent_bytes": 3}
    assert wanted.items() <= outer.items()
    assert {"model": "m", "tokens_out": 3, "client": "127.0.0.1", "level": "info"}.items() <= outer.items()
    assert "secret" not in json.dumps(lines()), "the query"
    assert request_id() == ""


@pytest.mark.parametrize(
    ("path", "status", "level"),
    [
        ("/ready", 503, "info"),
        ("/v1/models", 503, "warning"),
        ("/ready", 500, "error"),
        ("/v1/models", 404, "info"),
    ],
)
async def test_a_probe_that_finds_it_not_ready_is_no_warning(
    ask: Any, lines: Any, path: str, status: int, level: str
) -> None:
    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    await ask(RequestLog(answering), path)
    assert [line["level"] for line in lines()] == [level]


@pytest.mark.parametrize("sent", ["a", "my-trace_1.2:3", "x" * 128])
async def test_a_sane_id_is_kept(ask: Any, sent: str) -> None:
    assert (await ask(RequestLog(app), headers={"X-Request-ID": sent})).headers["x-request-id"] == sent


@pytest.mark.parametrize("sent", ["", "x" * 129, "a b", 'a"b', "a\r\nx: y", "é", "<script>", "a\n"])
async def test_another_id_is_replaced(ask: Any, sent: str) -> None:
    answer = await ask(RequestLog(app), headers={"X-Request-ID": sent})
    assert MADE.fullmatch(answer.headers["x-request-id"])


async def test_an_error_is_logged_and_goes_on_to_the_server(ask: Any, lines: Any) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError):
        await ask(RequestLog(broken))
    assert [(line["status"], line["level"], line["error"]) for line in lines()] == [(500, "error", "unhandled")]


async def test_a_caller_that_leaves_is_a_499(ask: Any, lines: Any) -> None:
    async def half(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})

    await ask(RequestLog(half))
    assert lines()[0]["status"] == 499


async def test_fields_of_one_request_do_not_reach_another(ask: Any, lines: Any) -> None:
    async def plain(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    await ask(RequestLog(app))
    await ask(RequestLog(plain))
    assert "model" not in lines()[-1]
    assert lines()[-1]["handler"] == "other"


async def test_what_is_not_http_passes_through() -> None:
    seen: list[str] = []

    async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        raise AssertionError

    await RequestLog(lifespan)({"type": "lifespan"}, receive, send)
    assert seen == ["lifespan"]


def test_no_text_can_forge_a_line_or_flood_the_log(lines: Any) -> None:
    logger = logging.getLogger("swarm.gateway.test")
    forged = 'x\n{"level": "info", "message": "all is well"}\u2028'
    logger.info(forged, extra={"model": forged + "y" * 10_000, "level": "forged"})
    (line,) = lines()
    assert line["message"] == forged
    assert line["level"] == "info"
    assert len(line["model"]) == 2000


def test_a_traceback_is_in_its_line(lines: Any) -> None:
    try:
        raise ValueError("why")
    except ValueError:
        logging.getLogger("swarm.gateway.test").exception("failed")
    (line,) = lines()
    assert "ValueError: why" in line["traceback"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
