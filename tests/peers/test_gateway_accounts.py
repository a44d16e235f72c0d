"""What was made is what is charged: the ledger says the truth of every ending; and choices of tools and formats hold.

By plain HTTP over a three-node swarm, where a client of the API would hide what is looked at.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2 as httpx
import pytest
import pytest_asyncio

from swarm.gateway.operations.usage import read_usage

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello there."}]
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(served: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=served.url, timeout=120) as http:
        yield http


def asked(served: Any, **fields: Any) -> dict[str, Any]:
    return {"model": served.model, "messages": HELLO, "max_tokens": 4, "temperature": 0.5, "seed": 1, **fields}


async def entry(served: Any, request_id: str) -> tuple[str, int, int, list[tuple[str, int, int]]]:
    """(finish reason, tokens in, tokens out, [(node, steps, steps times layers)]) of one request, once written."""
    import sqlite3

    file = served.gateway.services.ledger.file
    async with asyncio.timeout(60):
        while True:
            connection = sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)
            found = connection.execute(
                "select id, finish_reason, tokens_in, tokens_out from requests where request_id = ?", (request_id,)
            ).fetchall()
            shares = connection.execute(
                "select node_id, n_steps, layer_steps from shares where request = ?", (found[0][0] if found else -1,)
            ).fetchall()
            connection.close()
            if found:
                assert len(found) == 1
                return found[0][1], found[0][2], found[0][3], shares
            await asyncio.sleep(0.01)


async def test_every_node_is_credited_with_what_it_computed(http: httpx.AsyncClient, served: Any) -> None:
    answer = await http.post(CHAT, json=asked(served, n=2))
    usage = answer.json()["usage"]
    reason, tokens_in, tokens_out, shares = await entry(served, answer.headers["x-request-id"])
    assert (tokens_in, tokens_out) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert reason in ("length", "stop")
    ids = {(await node.event("started"))["node_id"] for node in served.nodes}
    assert {node_id for node_id, _, _ in shares} == ids
    assert {(n_steps, layer_steps) for _, n_steps, layer_steps in shares} == {(tokens_out, tokens_out)}


async def test_by_node_and_by_key_it_adds_up_to_the_same(http: httpx.AsyncClient, served: Any) -> None:
    answer = await http.post(CHAT, json=asked(served))
    await entry(served, answer.headers["x-request-id"])
    file = served.gateway.services.ledger.file
    by_key, by_node = read_usage(file, ("key",)), read_usage(file, ("node",))
    assert by_node.total.tokens_out == pytest.approx(by_key.total.tokens_out)
    assert by_node.total.tokens_in == pytest.approx(by_key.total.tokens_in)
    assert [row.group for row in by_key.rows] == [("anonymous",)] and len(by_node.rows) == 3


@pytest.mark.parametrize("stream", [False, True])
async def test_who_leaves_pays_for_what_was_made(stream: bool, http: httpx.AsyncClient, served: Any) -> None:
    """Also when it pipelines: a connection with requests waiting is read on, so that its end is noticed."""
    body = json.dumps(asked(served, max_tokens=480, stream=stream, temperature=1.5)).encode()
    request_id = f"leaving-{stream}"
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nX-Request-ID: {request_id}\r\n"
    )
    request = head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body
    _, writer = await asyncio.open_connection("127.0.0.1", served.gateway.address.port)
    writer.write(request)
    async with asyncio.timeout(60):
        while not all(node.n_sessions for node in served.nodes):
            await asyncio.sleep(0.01)
        for _ in range(3):
            writer.write(request)
            await writer.drain()
        writer.close()
        while any(node.n_sessions for node in served.nodes) or served.gateway.services.limits.n_running:
            await asyncio.sleep(0.01)
    reason, tokens_in, tokens_out, _ = await entry(served, request_id)
    assert reason == "cancelled" and tokens_in > 0 and tokens_out < 480


@pytest.mark.parametrize("n", [1, 3])
async def test_who_hangs_up_at_the_end_of_a_stream_has_had_all_of_it(n: int, served: Any) -> None:
    """As many clients do: they close the connection at [DONE], before the last of HTTP's own framing."""
    body = json.dumps(asked(served, stream=True, n=n)).encode()
    for turn in range(5):
        request_id = f"hanging-up-{n}-{turn}"
        head = (
            f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"X-Request-ID: {request_id}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", served.gateway.address.port)
        writer.write(head.encode() + body)
        async with asyncio.timeout(60):
            await reader.readuntil(b"data: [DONE]")
        writer.transport.abort()
        reason, _, tokens_out, _ = await entry(served, request_id)
        assert reason in ("length", "stop") and tokens_out <= 4 * n


async def test_n_answers_take_n_places(http: httpx.AsyncClient, served: Any) -> None:
    body = asked(served, stream=True, n=3, max_tokens=200, temperature=1.5)
    async with http.stream("POST", CHAT, json=body) as answer:
        async for _ in answer.aiter_lines():
            assert served.gateway.services.limits.n_running == 3
            break
    async with asyncio.timeout(60):
        while served.gateway.services.limits.n_running:
            await asyncio.sleep(0.01)


async def test_ready_once_every_layer_is_served(http: httpx.AsyncClient, served: Any) -> None:
    ready = await http.get("/ready")
    assert ready.status_code == 200 and "retry-after" not in ready.headers
    assert ready.json()["models"][0]["missing_layers"] == []


async def test_any_json_object(http: httpx.AsyncClient, served: Any) -> None:
    for seed in range(2):
        format_asked = asked(served, response_format={"type": "json_object"}, max_tokens=100, seed=seed)
        [choice] = (await http.post(CHAT, json=format_asked)).json()["choices"]
        if choice["finish_reason"] == "stop":
            assert isinstance(json.loads(choice["message"]["content"]), dict)
        else:
            assert choice["finish_reason"] == "length" and choice["message"]["content"].lstrip().startswith("{")


async def test_tools_that_must_not_or_need_not_be_called(http: httpx.AsyncClient, served: Any) -> None:
    """none: as if there were none. auto: told of, and an answer that is no call is text."""
    plain = (await http.post(CHAT, json=asked(served))).json()
    none = (await http.post(CHAT, json=asked(served, tools=[CLOCK], tool_choice="none"))).json()
    auto = (await http.post(CHAT, json=asked(served, tools=[CLOCK], tool_choice="auto"))).json()
    left_out = (await http.post(CHAT, json=asked(served, tools=[CLOCK]))).json()
    assert none["choices"] == plain["choices"] and none["usage"] == plain["usage"]
    assert auto["usage"]["prompt_tokens"] > plain["usage"]["prompt_tokens"]
    assert auto["choices"] == left_out["choices"]
    assert "tool_calls" not in auto["choices"][0]["message"] and auto["choices"][0]["message"]["content"]


async def test_a_whole_stream_s_usage_is_that_of_the_answer(http: httpx.AsyncClient, served: Any) -> None:
    whole = (await http.post(CHAT, json=asked(served, n=2))).json()["usage"]
    for options, expected in (({"include_usage": True}, whole), ({"include_usage": False}, None), (None, None)):
        lines = (await http.post(CHAT, json=asked(served, n=2, stream=True, stream_options=options))).text.split("\n\n")
        chunks = [json.loads(line.removeprefix("data: ")) for line in lines if line and line != "data: [DONE]"]
        told = [chunk["usage"] for chunk in chunks if chunk.get("usage")]
        assert told == ([] if expected is None else [expected])
