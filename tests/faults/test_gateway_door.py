"""A gateway's door: who is kept out, what is bounded, and what it says while nobody serves the model. No node runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2 as httpx
import pytest
import pytest_asyncio

from swarm.gateway import GatewayConfig
from swarm.gateway.operations.limits import LimitsConfig
from swarm.terms import Address

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "a-key-of-more-than-16-characters"
CHAT = "/v1/chat/completions"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def published(speaking_release: Any, make_local_swarm: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    swarm = make_local_swarm(speaking_release, tmp_path_factory.mktemp("door"))
    await swarm.publish()
    yield swarm
    await swarm.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(published: Any, open_gateway: Any) -> AsyncIterator[Any]:
    settings: dict[str, Any] = {"api_keys": (KEY,), "max_body_bytes": 2000, "header_timeout_s": 0.5, "timeout_s": 2.0}
    async with open_gateway(published, wait=False, **settings) as gateway:
        async with asyncio.timeout(120):
            while not gateway.services.registry.models:
                await asyncio.sleep(0.05)
        yield gateway


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(gateway: Any) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=gateway.url, timeout=60, headers=headers) as http:
        yield http


def chat(**changed: Any) -> dict[str, Any]:
    return {"model": "speaking", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2, **changed}


async def test_it_lives_and_is_not_ready(http: httpx.AsyncClient) -> None:
    assert (await http.get("/health")).json() == {"status": "ok"}
    ready = await http.get("/ready")
    assert ready.status_code == 503 and int(ready.headers["retry-after"]) >= 1
    [model] = ready.json()["models"]
    assert model["missing_layers"] == [0, 1, 2] and model["problem"] == "3 of 3 layers have no host"


@pytest.mark.parametrize("changed", [{}, {"stream": True}, {"random_seed": 1, "stream": True}])
async def test_an_answer_that_nobody_can_give_is_503_even_as_a_stream(
    changed: dict[str, Any], http: httpx.AsyncClient
) -> None:
    answer = await http.post(CHAT, json=chat(**changed))
    assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1
    body = answer.json()
    assert (body if "random_seed" in changed else body["error"])["code"] == "swarm_incomplete"


async def test_who_shows_no_key_is_kept_out_of_all_but_pages_and_health(gateway: Any) -> None:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as http:
        for path in ("/v1/models", "/v1/models/speaking", "/metrics", "/swarm/state.json"):
            answer = await http.get(path)
            assert (path, answer.status_code) == (path, 401)
            assert (
                answer.headers["www-authenticate"] == "Bearer" and answer.json()["error"]["code"] == "invalid_api_key"
            )
        assert (await http.post(CHAT, json=chat())).status_code == 401
        assert (await http.post(CHAT, json=chat(), headers={"Authorization": "Bearer wrong"})).status_code == 401
        twice = [("Authorization", f"Bearer {KEY}"), ("Authorization", "Bearer wrong")]
        assert (await http.get("/v1/models", headers=twice)).status_code == 401
        mistral = await http.post("/v1/fim/completions", json={})
        assert mistral.status_code == 401 and mistral.json()["object"] == "error"
        for path in ("/", "/swarm", "/health"):
            assert (path, (await http.get(path)).status_code) == (path, 200)


async def test_a_probe_without_a_key_learns_whether_it_is_ready_and_no_more(gateway: Any, http: Any) -> None:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as probe:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "nonsense"}):
            ready = await probe.get("/ready", headers=headers)
            assert ready.status_code == 503 and int(ready.headers["retry-after"]) >= 1
            assert ready.json() == {"ready": False}
    assert "speaking" in (await http.get("/ready")).text


async def test_models_and_metrics_with_the_key(http: httpx.AsyncClient) -> None:
    assert [model["id"] for model in (await http.get("/v1/models")).json()["data"]] == ["speaking"]
    metrics = (await http.get("/metrics")).text
    assert 'swarm:layers_uncovered{model_name="speaking"} 3.0' in metrics
    assert 'handler="/v1/models"' in metrics


async def test_another_site_s_page_is_kept_out(http: httpx.AsyncClient) -> None:
    assert (await http.get("/v1/models", headers={"Host": "evil.example"})).status_code == 421
    assert (await http.post(CHAT, json=chat(), headers={"Origin": "https://evil.example"})).status_code == 403
    assert "access-control-allow-origin" not in (await http.get("/health")).headers


async def test_what_is_too_large_or_no_json(http: httpx.AsyncClient) -> None:
    assert (await http.post(CHAT, json=chat(user="x" * 3000))).status_code == 413
    assert (await http.post(CHAT, content=b"{}", headers={"Content-Type": "text/plain"})).status_code == 415
    assert (await http.post(CHAT, content=b"{", headers={"Content-Type": "application/json"})).status_code == 400


async def test_paths_and_methods_that_do_not_exist(http: httpx.AsyncClient) -> None:
    assert (await http.get("/v1/embeddings")).json()["error"]["code"] == "not_found"
    wrong = await http.get(CHAT)
    assert wrong.status_code == 405 and wrong.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("whole", "part"),
    [
        (b"", b""),
        (b"", b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"),
        (b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"GET "),
    ],
)
async def test_a_head_that_does_not_come_ends_the_connection(whole: bytes, part: bytes, gateway: Any) -> None:
    """Also the head of a second request, on a connection that was kept alive."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.address.port)
    async with asyncio.timeout(60):
        writer.write(whole)
        if whole:
            await reader.readuntil(b'{"status":"ok"}')
        writer.write(part)
        assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


async def test_a_body_that_does_not_come_is_408(gateway: Any) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.address.port)
    head = f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\n"
    writer.write(head.encode() + b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
    async with asyncio.timeout(60):
        assert b" 408 " in await reader.readline()
    writer.close()
    await writer.wait_closed()


async def test_a_key_s_rate_is_kept_to(published: Any, open_gateway: Any) -> None:
    limits = LimitsConfig(requests_per_min=1)
    async with open_gateway(published, wait=False, limits=limits, timeout_s=2.0) as gateway:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as http:
            async with asyncio.timeout(120):
                while not gateway.services.registry.models:
                    await asyncio.sleep(0.05)
            answers = [await http.post(CHAT, json=chat()) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [503, 429]
    assert int(answers[1].headers["retry-after"]) >= 1 and answers[1].json()["error"]["code"] == "rate_limit_exceeded"


async def test_a_release_that_nobody_seeds_keeps_the_gateway_waiting_not_failing(
    published: Any, open_gateway: Any
) -> None:
    from swarm.gateway.server import Gateway

    magnet = f"magnet:?xt=urn:btih:{'ab' * 20}&dn=Absent"
    where: dict[str, Any] = {"network": "loopback", "data_dir": published.work_dir / "absent", "timeout_s": 0.5}
    async with Gateway(GatewayConfig((magnet,), listen=Address("127.0.0.1", 0), drain_timeout_s=0, **where)) as gateway:
        async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as http:
            assert (await http.get("/ready")).json()["models"][0]["name"] == "Absent"
            asked = await http.post(CHAT, json=chat(model="Absent"))
            assert asked.status_code == 503 and asked.json()["error"]["code"] == "model_not_ready"
