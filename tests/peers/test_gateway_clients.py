"""Every snippet of docs/clients.md is run as it stands, against a gateway over three nodes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "clients.md").read_text()
OTHERS = ROOT / ".venv" / "clients"
"""The virtual environment of the clients in clients.txt. `installed` in it says that they all are."""

URL, MODEL = "http://127.0.0.1:8000", "my-model"
TIMEOUT_S = 400.0
"""Generous: LiteLLM takes 5 s of CPU to be imported, of which a busy machine makes minutes."""

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
    assert {"LangChain (tested)", "LiteLLM (tested)", "Continue (not tested)"} <= headings
    assert "## open-webui (not tested)" in PAGE
    assert len(TESTED) == 6


async def test_the_file_for_continue_is_yaml_that_names_the_gateway() -> None:
    [text] = [text for heading, _, text in snippets() if heading.startswith("Continue")]
    models = yaml.safe_load(text)["models"]
    assert {model["apiBase"] for model in models} == {f"{URL}/v1"}
    assert {model["model"] for model in models} == {MODEL}
