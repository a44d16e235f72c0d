"""What would keep the compiler busy for seconds or minutes is refused at once; what people write is not."""

from __future__ import annotations

import time
from typing import Any

import pytest

from swarm.errors import BadArgument
from swarm.grammar import Grammar
from swarm.grammar.bounds import MAX_ALTERNATIVES, check_bounds

COSTLY: tuple[dict[str, Any], ...] = (
    {"type": "integer", "multipleOf": 300_007},
    {"type": "number", "multipleOf": 3.000007},
    {"type": "number", "multipleOf": 1e-300},
    {"type": "integer", "multipleOf": 0},
    {"type": "integer", "multipleOf": float("inf")},
    {"allOf": [{"type": "integer", "multipleOf": 9973}, {"multipleOf": 9967}]},
    {"prefixItems": [{"type": "integer", "multipleOf": 19_997}] * 20},
    {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(MAX_ALTERNATIVES + 1)}},
    {"$defs": {"deep": {"anyOf": [{"const": i} for i in range(MAX_ALTERNATIVES + 1)]}}},
)
USUAL: tuple[dict[str, Any], ...] = (
    {"type": "object", "properties": {f"p{i}": {"type": "number", "multipleOf": 0.01} for i in range(60)}},
    {"properties": {"price": {"multipleOf": 0.05}, "dozens": {"multipleOf": 12}, "share": {"multipleOf": 0.001}}},
    {"properties": {"multipleOf": {"type": "string"}, "anyOf": {"type": "integer"}}},
    {"enum": [f"choice {i}" for i in range(4000)]},
    {"type": "number", "multipleOf": 1e-9},
)


@pytest.mark.parametrize("schema", COSTLY)
def test_what_costs_too_much_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(BadArgument):
        check_bounds([schema], "the schema")


def test_so_are_tools_that_cost_too_much_together() -> None:
    parameters = {"type": "integer", "multipleOf": 19_997}
    check_bounds([parameters], "the tools' parameters")
    with pytest.raises(BadArgument):
        check_bounds([parameters] * 3, "the tools' parameters")


@pytest.mark.parametrize("schema", USUAL)
def test_what_people_write_is_not(schema: dict[str, Any]) -> None:
    check_bounds([schema], "the schema")


def test_the_compiler_looks_before_it_compiles(tokenizer_of: Any) -> None:
    from swarm.grammar import GrammarCompiler

    tokenizer = tokenizer_of("v3")
    compiler = GrammarCompiler(tokenizer, tokenizer.vocab_size)
    compiler.compile(Grammar.json_object())
    costly = {"type": "integer", "multipleOf": 300_007}
    tool = {"type": "function", "function": {"name": "count", "parameters": {"properties": {"n": costly}}}}
    started_s = time.process_time()
    for grammar in (Grammar.json_schema(costly), Grammar.tool_call([tool])):
        with pytest.raises(BadArgument, match="multipleOf"):
            compiler.compile(grammar)
    assert time.process_time() - started_s < 1.0


def test_a_mask_is_computed_once_for_each_place(tokenizer_of: Any) -> None:
    """It is asked for with the step and again with the answer, on the loop that serves everybody."""
    from swarm.grammar import GrammarCompiler

    tokenizer = tokenizer_of("v3")
    constraint = GrammarCompiler(tokenizer, tokenizer.vocab_size).compile(Grammar.json_object())
    before = constraint.mask()
    assert constraint.mask() is before
    [brace] = tokenizer.encode_inner("{")
    constraint.take(brace)
    assert constraint.mask() != before
