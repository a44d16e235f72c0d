"""Tool calls are read from ids, in every form that Mistral's templates have, as the templates themselves write them."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from swarm.gateway.messages import plain_tools, tool_call_id
from swarm.gateway.tool_calls import ToolCallReader, is_accepted
from swarm.tokenizer import Tokenizer, load_tokenizer

FILES = {
    "v3": "mistral_instruct_tokenizer_240323.model.v3",
    "v7": "mistral_instruct_tokenizer_241114.model.v7",
    "v3-tekken": "tekken_240718.json",
}
NEWER = ("v11", "v13")
SPECIALS = """
    <unk> <s> </s> [INST] [/INST] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_RESULTS] [/TOOL_RESULTS] [TOOL_CALLS] [IMG]
    <pad> [IMG_BREAK] [IMG_END] [PREFIX] [MIDDLE] [SUFFIX] [SYSTEM_PROMPT] [/SYSTEM_PROMPT] [TOOL_CONTENT] [ARGS]
    [CALL_ID] [THINK] [/THINK]
"""
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS = plain_tools(
    [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}},
     {"type": "function", "function": {"name": "clock"}}]
)  # fmt: skip


@pytest.fixture(scope="module", params=[*FILES, *NEWER])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    bundled = Path(MistralTokenizer._data_path())
    if request.param in FILES:
        return load_tokenizer(bundled / FILES[request.param])
    data = json.loads((bundled / FILES["v3-tekken"]).read_text())
    data["vocab"] = data["vocab"][:3000]
    data["vocab"][-1] = {"rank": 2999, "token_bytes": base64.b64encode(b"\xe2\x98").decode(), "token_str": None}
    data["config"] |= {"version": request.param, "default_vocab_size": 3040, "default_num_special_tokens": 40}
    data["special_tokens"] = [{"rank": i, "token_str": s, "is_control": True} for i, s in enumerate(SPECIALS.split())]
    path = tmp_path_factory.mktemp("tekken") / "tekken.json"
    path.write_text(json.dumps(data))
    return load_tokenizer(path)


def written(tokenizer: Tokenizer, *calls: tuple[str, dict[str, Any]]) -> list[int]:
    """The ids of an assistant's turn with these calls, up to its end, by the template itself."""
    ids = [tool_call_id(str(i)) for i in range(len(calls))]
    made = [
        {"id": call_id, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for call_id, (name, arguments) in zip(ids, calls, strict=True)
    ]
    results = [{"role": "tool", "tool_call_id": call_id, "name": name, "content": "-"} for call_id, (name, _) in zip(ids, calls, strict=True)]  # noqa: E501  # fmt: skip
    conversation = [{"role": "user", "content": "?"}, {"role": "assistant", "tool_calls": made}, *results]
    told = tokenizer.encode_chat(conversation, TOOLS)
    first = told.index(tokenizer.special_id("[TOOL_CALLS]"))  # type: ignore[arg-type]
    return told[first : told.index(tokenizer.eos_id, first) + 1]


def read(tokenizer: Tokenizer, ids: list[int]) -> tuple[str, list[tuple[str, dict[str, Any]]]]:
    """(the text, the calls) of an answer."""
    reader, decoder = ToolCallReader(tokenizer, TOOLS), tokenizer.stream(continues=True)
    text, calls = "", []
    for token_id in ids:
        more, done = reader.push(token_id, decoder.push(token_id))
        text, calls = text + more, [*calls, *done]
    more, done = reader.finish()
    calls += done
    assert reader.n_calls == len(calls)
    assert all(len(call.id) == 9 and call.id.isalnum() for call in calls)
    return text + more, [(call.name, json.loads(call.arguments)) for call in calls]


def test_one_call_and_several(tokenizer: Tokenizer) -> None:
    rome, paris = ("weather", {"city": "Rome [ARGS] ☺"}), ("weather", {"city": 'Pa"ris', "days": 3})
    assert read(tokenizer, written(tokenizer, rome)) == ("", [rome])
    assert read(tokenizer, written(tokenizer, rome, paris, ("clock", {}))) == ("", [rome, paris, ("clock", {})])


def test_text_before_a_call_stays_text(tokenizer: Tokenizer) -> None:
    before = tokenizer.encode("Let me see.", bos=False)
    text, calls = read(tokenizer, [*before, *written(tokenizer, ("clock", {}))])
    assert (text.strip(), calls) == ("Let me see.", [("clock", {})])


def test_marks_in_mere_text_are_text(tokenizer: Tokenizer) -> None:
    said = '[TOOL_CALLS] [{"name": "clock", "arguments": {}}]'
    text, calls = read(tokenizer, tokenizer.encode(said, bos=False))
    assert (text.strip(), calls) == (said, [])


@pytest.mark.parametrize(
    "wrong", [("nothing", {}), ("weather", {}), ("weather", {"city": 5}), ("weather", {"city": "Rome", "more": 1})]
)
def test_a_call_that_no_tool_would_take_is_handed_back_as_text(
    tokenizer: Tokenizer, wrong: tuple[str, dict[str, Any]]
) -> None:
    text, calls = read(tokenizer, written(tokenizer, wrong))
    assert calls == [] and text.startswith("[TOOL_CALLS]") and wrong[0] in text


def test_a_call_that_was_cut_off_is_text(tokenizer: Tokenizer) -> None:
    text, calls = read(tokenizer, written(tokenizer, ("weather", {"city": "Rome"}))[:-4])
    assert calls == [] and "weather" in text


def test_a_schema_from_a_request_makes_nobody_fetch_or_search_for_ever() -> None:
    evil = {
        "type": "object",
        "properties": {"a": {"pattern": "^(a+)+$"}},
        "patternProperties": {"^(b+)+$": {"type": "null"}},
    }
    assert is_accepted({"a": "a" * 40 + "!", "b" * 40 + "!": 1}, evil)
    assert is_accepted({"a": 1}, {"$ref": "http://127.0.0.1:9/schema.json"})
    assert is_accepted({"a": 1}, {"type": "no such type"})
    assert not is_accepted({"a": 1}, {"properties": {"a": {"type": "string"}}})


def test_ids_keep_their_length() -> None:
    assert tool_call_id("abcDEF123") == "abcDEF123"
    made = {tool_call_id(given) for given in ("call_1", "call_2", "", "é" * 300)}
    assert len(made) == 4 and all(len(one) == 9 and one.isalnum() for one in made)


def doubling(depth: int) -> dict[str, Any]:
    """A schema of a few lines that asks for 2 ** depth checks."""
    names = [f"d{i}" for i in range(depth)]
    defs: dict[str, Any] = {
        name: {"allOf": [{"$ref": f"#/$defs/{after}"}] * 2}
        for name, after in zip(names, [*names[1:], "end"], strict=True)
    }
    return {"type": "object", "$defs": {**defs, "end": {"type": "object"}}, "$ref": "#/$defs/d0"}


def test_a_schema_that_asks_for_a_billion_checks_is_left_alone() -> None:
    assert is_accepted({}, doubling(30))


DRAFTS = ("2020-12/schema", "2019-09/schema", "draft-07/schema#")


@pytest.mark.parametrize("draft", [f"https://json-schema.org/{draft}" for draft in DRAFTS])
def test_a_schema_within_a_schema_is_bounded_too(draft: str) -> None:
    """Wherever a schema names its dialect, jsonschema would take another checker: one that runs patterns for ever."""
    evil = {"$schema": draft, "pattern": "^(a+)+$"}
    assert is_accepted({"x": "a" * 40 + "!"}, {"properties": {"x": evil}})
    assert is_accepted({}, {"properties": {}, "allOf": [{"$schema": draft, **doubling(30)}]})
    assert not is_accepted({"x": 1}, {"$schema": draft, "properties": {"x": {"$schema": draft, "type": "string"}}})


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"x": {"multipleOf": 0.1}}},
        {"properties": {"x": {"$ref": "http://["}}},
        {"$ref": "#"},
        {"$dynamicRef": "#nowhere"},
        {"unevaluatedProperties": False, "properties": {"x": {}}},
    ],
)
def test_a_schema_that_breaks_its_checker_refuses_nothing(schema: dict[str, Any]) -> None:
    assert is_accepted({"x": 10**400}, schema)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_arguments_that_are_no_json_are_no_call(tokenizer: Tokenizer, number: str) -> None:
    """Python reads them; the clients' parsers do not."""
    tools = plain_tools([{"type": "function", "function": {"name": "any", "parameters": {}}}])
    given = written(tokenizer, ("any", {"x": "NUMBER"}))
    inner = tokenizer.encode_inner
    arguments = f'{{"x": {number}}}'
    mark, args = tokenizer.special_id("[TOOL_CALLS]"), tokenizer.special_id("[ARGS]")
    assert mark in given and mark is not None
    if args is not None:
        ids = [mark, *inner("any"), args, *inner(arguments)]
    else:
        ids = [mark, *inner(f'[{{"name": "any", "arguments": {arguments}}}]')]
    reader = ToolCallReader(tokenizer, tools)
    for token_id in ids:
        assert reader.push(token_id, "") == ("", ())
    text, calls = reader.finish()
    assert calls == () and number in text
