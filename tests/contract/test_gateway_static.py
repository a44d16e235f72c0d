"""The pages' files: complete, in the wheel's reach, asking nobody else, and never parsing text as HTML."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from swarm.gateway import GatewayConfig, ModelRegistry
from swarm.gateway.pages import CONTENT_TYPES, SECURITY_HEADERS, STATIC, read_static, routes

FILES = sorted(path for path in STATIC.rglob("*") if path.is_file())
SOURCES = {path.relative_to(STATIC).as_posix(): path.read_text() for path in FILES}
MAX_LINES = 400

UNSAFE = (
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|srcdoc|"
    r"\beval\b|new Function|setTimeout\(\s*[\"']"
)
MAGNET = f"magnet:?xt=urn:btih:{'ab' * 20}"


@pytest.fixture
def client() -> TestClient:
    """The pages of a gateway that has not opened its model."""
    registry = ModelRegistry(GatewayConfig((MAGNET,), network="loopback"))
    return TestClient(Starlette(routes=routes(registry)))


def test_every_file_is_served_and_of_a_known_type() -> None:
    assert set(read_static(STATIC)) == set(SOURCES)
    assert {Path(name).suffix for name in SOURCES} <= set(CONTENT_TYPES)
    assert all(source.count("\n") <= MAX_LINES for source in SOURCES.values())


@pytest.mark.parametrize("name", [name for name in SOURCES if name.endswith((".js", ".html"))])
def test_text_is_never_parsed_as_html_or_code(name: str) -> None:
    assert re.findall(UNSAFE, SOURCES[name]) == []
    assert re.findall(r"\son\w+=|style=|<style|<script(?! (?:type=\"module\" )?src=)", SOURCES[name]) == []


@pytest.mark.parametrize("name", list(SOURCES))
def test_no_file_names_another_host(name: str) -> None:
    urls = re.findall(r"(?:https?:)?//[a-z0-9][\w.-]*\.[a-z]{2,}", SOURCES[name])
    assert [url for url in urls if "www.w3.org" not in url] == []  # SVG's namespace, which nobody fetches


def test_what_files_refer_to_exists() -> None:
    for name, source in SOURCES.items():
        here = Path("/static") / name
        imported = re.findall(r"^(?:import|export) .*?from \"(.+?)\";", source, re.MULTILINE | re.DOTALL)
        linked = re.findall(r"(?:href|src)[=:] ?\"(/static/.+?)\"", source)
        for path in [(here.parent / found).as_posix() for found in imported] + linked:
            resolved = Path(*_resolved(path)).as_posix()
            assert resolved.removeprefix("/static/") in SOURCES, f"{name} refers to {path}"


def test_each_answer_carries_the_policy(client: TestClient) -> None:
    for path in (
        "/",
        "/swarm",
        "/static/chat/main.js",
        "/static/nothing.js",
        "/swarm/state.json",
        "/swarm/routes/x.json",
    ):
        answer = client.get(path)
        assert {name: answer.headers.get(name) for name in SECURITY_HEADERS} == SECURITY_HEADERS, path
    policy = SECURITY_HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "script-src 'self';" in policy and "unsafe" not in policy


def test_a_page_is_sent_again_only_when_it_changed(client: TestClient) -> None:
    first = client.get("/")
    assert first.status_code == 200 and first.headers["content-type"] == "text/html; charset=utf-8"
    assert first.headers["cache-control"] == "no-cache"
    again = client.get("/", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304 and again.content == b""
    assert client.head("/").status_code == 200
    assert client.post("/").status_code == 405


@pytest.mark.parametrize("path", ["../pages.py", "%2e%2e/pages.py", "chat/../../pages.py", "/etc/passwd", "chat", ""])
def test_nothing_else_of_the_disk_is_served(client: TestClient, path: str) -> None:
    answer = client.get(f"/static/{path}")
    assert answer.status_code == 404 and "import" not in answer.text


def test_a_route_that_nobody_took_is_a_404_in_words(client: TestClient) -> None:
    answer = client.get("/swarm/routes/chatcmpl-1.json")
    assert answer.status_code == 404
    assert "'chatcmpl-1'" in answer.json()["error"]["message"]


def test_before_its_model_is_open_the_state_says_so(client: TestClient) -> None:
    state = client.get("/swarm/state.json").json()
    (model,) = state["models"]
    assert model == {"name": "ab" * 20, "is_ready": False, "problem": model["problem"]}
    assert model["problem"]


def _resolved(path: str) -> list[str]:
    parts: list[str] = []
    for part in Path(path).parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return parts
