"""A grammar's plain values: what is refused when it is built, and that JSON brings it back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from swarm.errors import BadArgument
from swarm.grammar import MAX_GRAMMAR_BYTES, MAX_TOOL_CALLS, Grammar


def tool(name: Any = "get", **function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **function}}


GOOD = [
    Grammar.json_object(),
    Grammar.json_schema({"type": "string", "const": "ü\n"}),
    Grammar.json_schema('{"type": "integer"}'),
    Grammar.json_schema(True),
    Grammar.regex("a+"),
    Grammar.lark('start: "a"'),
    Grammar.choice(["yes", "no"]),
    Grammar.tool_call([tool(), tool("set")]),
    Grammar.tool_call([tool(), tool("set")], "set"),
]


@pytest.mark.parametrize("grammar", GOOD, ids=lambda grammar: grammar.kind)
def test_json_brings_it_back(grammar: Grammar) -> None:
    assert Grammar.from_json(json.loads(json.dumps(grammar.to_json()))) == grammar


def test_a_schema_is_the_same_as_text_and_as_values() -> None:
    assert Grammar.json_schema('{"type": "integer"}') == Grammar.json_schema({"type": "integer"})


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (lambda: Grammar("poem", "x"), "kind 'poem' does not exist"),
        (lambda: Grammar.regex(""), "regex grammar is empty"),
        (lambda: Grammar.regex("\ud800"), "not Unicode"),
        (lambda: Grammar.lark("x" * (MAX_GRAMMAR_BYTES + 1)), "are the most"),
        (lambda: Grammar.json_schema("{"), "not JSON"),
        (lambda: Grammar.json_schema("[1]"), "must be an object"),
        (lambda: Grammar.json_schema("[" * 100_000), "levels deep"),
        (lambda: Grammar.json_schema({"const": float("nan")}), "cannot be written as JSON"),
        (lambda: Grammar.json_schema({"const": {1, 2}}), "cannot be written as JSON"),
        (lambda: Grammar.json_schema(nested(64)), "levels deep"),
        (lambda: Grammar.choice([]), "between 0 texts"),
        (lambda: Grammar.choice("yes"), "between texts"),
        (lambda: Grammar.choice(["a", ""]), "none of them empty"),
        (lambda: Grammar.choice(["a", 1]), "between texts"),
        (lambda: Grammar.tool_call([]), "no tool is named 'required'"),
        (lambda: Grammar.tool_call([tool()], "put"), "no tool is named 'put'; there are: get"),
        (lambda: Grammar.tool_call([tool(), tool()]), "same name"),
        (lambda: Grammar.tool_call([tool("a b")]), "name of 1 to 64"),
        (lambda: Grammar.tool_call([tool('x"')]), "name of 1 to 64"),
        (lambda: Grammar.tool_call([{"name": "get"}]), "must have a function"),
        (lambda: Grammar.tool_call([tool(parameters=[1])]), "must be a JSON schema"),
        (lambda: Grammar.from_json(None), "a kind and a source"),
        (lambda: Grammar.from_json({"kind": "regex", "source": "a", "more": 1}), "a kind and a source"),
        (lambda: Grammar.from_json({"kind": "regex", "source": 5}), "is empty"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(build: Any, why: str) -> None:
    with pytest.raises(BadArgument, match=why):
        build()


def test_a_schema_of_the_greatest_depth_is_built() -> None:
    assert Grammar.json_schema(nested(62)).kind == "json_schema"


def test_a_named_tool_is_called_once_and_others_as_often_as_the_caller_allows() -> None:
    tools = [tool(), tool("set")]
    read = [
        json.loads(Grammar.tool_call(tools, choice, parallel=parallel).source)
        for choice, parallel in (("required", True), ("any", False), ("set", True))
    ]
    assert [asked["max_calls"] for asked in read] == [MAX_TOOL_CALLS, 1, 1]
    assert [[signature["name"] for signature in asked["tools"]] for asked in read] == [["get", "set"]] * 2 + [["set"]]
