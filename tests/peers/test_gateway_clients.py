"""Every snippet of docs/clients.md is run as it stands, against a gateway over three nodes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import jsonschema
import pytest
import pytest_asyncio
import yaml

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "clients.md").read_text()
OTHERS = ROOT / ".venv" / "clients"
"""The virtual environment of the clients in clients.txt. `installed` in it says that they all are."""

URL, MODEL = "http://127.0.0.1:8000", "my-model"
TIMEOUT_S = 400.0
"""Generous: LiteLLM takes 5 s of CPU to be imported, of which a busy machine makes minutes."""

REPLAYED = "its requests are tested, the program is not"

SNIPPET = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def snippets() -> list[tuple[str, str, str]]:
    """(heading, language, text) of every fenced block."""
    found = []
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        heading = section.partition("\n")[0]
        found += [(heading, language, text) for language, text in SNIPPET.findall(section)]
    return found


TESTED = [(heading, language, text) for heading, language, text in snippets() if heading.endswith("(tested)")]


def command(language: str, text: str) -> list[str]:
    """What runs the snippet. Skips, naming what to install, where it is not there."""
    if language == "bash":
        if shutil.which("curl") is None:
            pytest.skip("curl is not installed here")
        return ["bash", "-euc", text]
    module = re.match(r"(?:import|from) (\w+)", text)
    assert module is not None, "a snippet begins with the import of its client"
    if module[1] in ("openai", "mistralai"):
        return [sys.executable, "-c", text]
    if not (OTHERS / "installed").exists():
        pytest.skip(f"{module[1]} is not installed here; scripts/test installs it")
    return [str(OTHERS / "bin" / "python"), "-c", text]


async def run(language: str, text: str, served: Any) -> str:
    """The snippet's output. Only its address and its model are put in their place."""
    assert URL in text and MODEL in text
    words = command(language, text.replace(URL, served.url).replace(MODEL, served.model))
    # No proxy, no price list, no tracing: whatever else a client would ask for is not at hand.
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    environment |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LANGSMITH_TRACING": "false", "PYTHONUTF8": "1"}
    process = await asyncio.create_subprocess_exec(
        *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, f"{out.decode()}\n{err.decode()}"
    return out.decode()


@pytest.mark.timeout(500)
@pytest.mark.parametrize(("heading", "language", "text"), TESTED, ids=[s[0].split()[0] for s in TESTED])
async def test_the_snippet_runs(heading: str, language: str, text: str, served: Any) -> None:
    requests = served.gateway.services.metrics.registry
    before = generated_tokens(requests)
    out = await run(language, text, served)
    assert generated_tokens(requests) > before, "the answer came from this gateway"
    if language == "bash":
        assert json.loads(out)["choices"][0]["message"]["role"] == "assistant"
    elif "json_schema" in text:
        schema = re.search(r"^schema = (\{.*?^\})", text, re.MULTILINE | re.DOTALL)
        assert schema is not None
        jsonschema.validate(json.loads(out), yaml.safe_load(schema[1].replace("False", "false")))
    else:
        assert out.strip()


def generated_tokens(registry: Any) -> float:
    samples = [sample for family in registry.collect() for sample in family.samples]
    return float(sum(sample.value for sample in samples if sample.name == "swarm:generation_tokens_total"))


async def test_the_page_has_all_that_it_should() -> None:
    headings = {heading for heading, _, _ in snippets()}
    assert {
        "LangChain (tested)",
        "LiteLLM (tested)",
        "Continue (its requests are tested, the program is not)",
    } <= headings
    assert "## open-webui (its requests are tested, the program is not)" in PAGE
    assert len(TESTED) == 6


# -- programs that are not installed here: the requests that their sources make ----------------------------------------
# Read in continuedev/continue, core/llm/llms/{OpenAI,Mistral}.ts, and open-webui, backend/open_webui/routers/openai.py.


async def streamed(http: httpx.AsyncClient, path: str, body: dict[str, Any], **headers: str) -> list[dict[str, Any]]:
    """The chunks of a stream that ends as it should."""
    async with http.stream("POST", path, json={**body, "stream": True}, headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line async for line in answer.aiter_lines() if line]
    assert lines[-1] == "data: [DONE]" and all(line.startswith("data: ") for line in lines)
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


@pytest_asyncio.fixture(loop_scope="module")
async def http(served: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=served.url, timeout=120, headers={"Authorization": "Bearer any-word"}
    ) as http:
        yield http


async def test_continue_completes_code(http: httpx.AsyncClient, served: Any) -> None:
    """Its reader joins choices[0].delta.content of every chunk: one without would put the word undefined into code."""
    body = {
        "model": served.model, "prompt": "def add(a, b):\n", "suffix": "\nprint(add(1, 2))", "max_tokens": 8,
        "temperature": 0.01, "stop": ["[PREFIX]", "[SUFFIX]", "\n\n\n"],
    }  # fmt: skip
    headers = {"Accept": "application/json", "x-api-key": "any-word"}
    chunks = await streamed(http, "/v1/fim/completions", body, **headers)
    assert all(isinstance(chunk["choices"][0]["delta"]["content"], str) for chunk in chunks)
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks)


async def test_continue_chats_by_either_provider(http: httpx.AsyncClient, served: Any) -> None:
    headers = {"api-key": "any-word"}
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    body = {"model": served.model, "messages": messages, "max_tokens": 6, "temperature": 0.5, "stop": ["```"]}
    for last in (
        [],
        [{"role": "assistant", "content": "Well,", "prefix": True}],
    ):  # the latter: provider mistral, edits
        chunks = await streamed(http, "/v1/chat/completions", {**body, "messages": messages + last}, **headers)
        assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    assert served.model in [model["id"] for model in (await http.get("/v1/models", headers=headers)).json()["data"]]
    texts = await streamed(http, "/v1/completions", {"model": served.model, "prompt": "Once", "max_tokens": 6})
    assert "".join(chunk["choices"][0]["text"] for chunk in texts)


async def test_open_webui_lists_models_chats_and_names_the_chat(http: httpx.AsyncClient, served: Any) -> None:
    """A connection is tried with GET /models; a chat streams with its usage; its title and tags are asked for whole."""
    listed = (await http.get("/v1/models", headers={"Content-Type": "application/json"})).json()
    assert [model["id"] for model in listed["data"]] == [served.model]
    asked = {"model": served.model, "messages": [{"role": "user", "content": "Hello"}]}
    usual = {"stream_options": {"include_usage": True}, "temperature": 0.8, "max_tokens": 6, "stop": []}
    chunks = await streamed(http, "/v1/chat/completions", {**asked, **usual})
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["completion_tokens"] == 6
    title = await http.post("/v1/chat/completions", json={**asked, "stream": False, "max_completion_tokens": 9})
    assert title.json()["choices"][0]["message"]["content"] and title.json()["usage"]["completion_tokens"] == 9


async def test_the_file_for_continue_is_yaml_that_names_the_gateway() -> None:
    [text] = [text for heading, _, text in snippets() if heading.startswith("Continue")]
    models = yaml.safe_load(text)["models"]
    assert {model["apiBase"] for model in models} == {f"{URL}/v1"}
    assert {model["model"] for model in models} == {MODEL}
