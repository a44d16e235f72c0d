"""Answers that keep a grammar, over real nodes: through lost ones, in journals, in chats that call tools."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from node.stage import Stage
from node.weights import write_release
from swarm.errors import BadArgument, RemoteProtocolError
from swarm.grammar import Grammar
from swarm.release import ModelArgs
from swarm.sampling import SamplingParams

SCHEMA = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "minLength": 12, "maxLength": 30},
        "pages": {"type": "integer", "minimum": 1, "maximum": 2000},
        "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "minItems": 2, "maxItems": 4},
    },
    "required": ["title", "pages", "tags"],
    "additionalProperties": False,
}
GRAMMAR = Grammar.json_schema(SCHEMA)
SEEDED = SamplingParams(max_tokens=400, temperature=1.0, seed=5)
MESSAGES = [{"role": "user", "content": "Name a book."}]


@pytest.fixture(scope="module")
def speaking_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six small layers of random weights, with a real tokenizer."""
    args = ModelArgs(
        architecture="mistral", dim=32, n_layers=6, n_heads=4, n_kv_heads=2, head_dim=8, hidden_dim=64,
        vocab_size=32768, norm_eps=1e-5, rope_theta=1e6, max_positions=2048,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("release") / "speaking"
    write_release(args, folder, dtype="fp32", tokenizer="v3")
    return folder


@pytest.fixture
async def swarm(speaking_release: Path, local_swarm: Callable[[Path], Any]) -> Any:
    swarm = local_swarm(speaking_release)
    await swarm.publish()
    return swarm


async def test_random_weights_answer_in_the_form_that_was_asked_for(swarm: Any) -> None:
    await asyncio.gather(*(swarm.start(span) for span in ("0:2", "2:4", "4:6")))
    tools = [
        {"type": "function", "function": {"name": name, "parameters": SCHEMA, "description": ""}}
        for name in ("lend", "buy")
    ]
    async with swarm.client() as client:
        book = await client.chat(MESSAGES, dataclasses.replace(SEEDED, logprobs=3), grammar=GRAMMAR)
        number = await client.generate("Call ", SEEDED, grammar=Grammar.regex(r"0\d{2}-\d{4}"))
        word = await client.chat(MESSAGES, SEEDED, grammar=Grammar.choice([" led by a space", " led by it too"]))
        call = await client.chat(MESSAGES, SEEDED, tools=tools, grammar=Grammar.tool_call(tools, "buy"))
        greedy = await client.generate("{", SamplingParams(max_tokens=400, temperature=0.0), grammar=GRAMMAR)
        with pytest.raises(BadArgument, match="uniqueItems"):
            await client.generate("x", grammar=Grammar.json_schema({"type": "array", "uniqueItems": True}))
        with pytest.raises(BadArgument, match="ignore_eos"):
            await client.generate("x", SamplingParams(ignore_eos=True), grammar=GRAMMAR)
    for answer in (book, greedy):
        jsonschema.validate(json.loads(answer.text), SCHEMA)
    assert len(book.route.hops) == 3
    assert {answer.finish_reason for answer in (book, number, word, call, greedy)} == {"stop"}
    assert re.fullmatch(r"0\d{2}-\d{4}", number.text)
    assert word.text in (" led by a space", " led by it too")
    assert call.ids[0] == client.release.tokenizer.special_id("[TOOL_CALLS]")
    (made,) = json.loads(call.text)
    assert made["name"] == "buy"
    jsonschema.validate(made["arguments"], SCHEMA)
    assert all(logprob <= 0.0 for logprob in book.logprobs)


async def test_a_killed_node_changes_no_token_of_a_constrained_answer(swarm: Any) -> None:
    await swarm.start("0:3")
    lasts = await asyncio.gather(swarm.start("3:6"), swarm.start("3:6"))
    async with swarm.client() as client:
        undisturbed = await client.generate("A book: ", SEEDED, grammar=GRAMMAR)
        async with client.stream("A book: ", SEEDED, grammar=GRAMMAR) as stream:
            async for event in stream:
                if event.index == 5:
                    served = str(stream.result.route.hops[-1].address)
                    (victim,) = [node for node in lasts if str((await node.event("ready"))["address"]) == served]
                    await victim.kill()
    assert stream.result.timings.n_replays >= 1
    assert stream.result.ids == undisturbed.ids
    assert stream.result.logprobs == pytest.approx(undisturbed.logprobs, abs=1e-4)  # replayed in larger chunks
    jsonschema.validate(json.loads(stream.result.text), SCHEMA)


async def test_a_journal_restores_the_place_in_the_grammar(swarm: Any, tmp_path: Path) -> None:
    await swarm.start("0:6")
    path = tmp_path / "journal"
    async with swarm.client() as client:
        undisturbed = await client.chat(MESSAGES, SEEDED, grammar=GRAMMAR)
        async with client.stream_chat(MESSAGES, SEEDED, grammar=GRAMMAR, journal=path) as cut:
            async for event in cut:
                if event.index == 7:
                    break
    async with swarm.client() as client, client.resume(path) as rest:
        n_new = len([event async for event in rest])
    assert n_new == len(undisturbed.ids) - 8
    assert (rest.result.ids, rest.result.text) == (undisturbed.ids, undisturbed.text)
    jsonschema.validate(json.loads(rest.result.text), SCHEMA)


async def test_a_node_that_does_not_know_masks_is_found_out(swarm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older one drops the field unread, and answers with whatever it likes best."""
    honest = Stage.step
    monkeypatch.setattr(
        Stage, "step", lambda self, session, step: honest(self, session, dataclasses.replace(step, allowed=b""))
    )
    await swarm.start("0:6")
    async with swarm.client(timeout_s=2.0) as client:
        with pytest.raises(RemoteProtocolError, match="did not allow"):
            await client.generate("x", SEEDED, grammar=GRAMMAR)
        assert (await client.generate("x", SamplingParams(max_tokens=3))).ids
