"""A constraint allows exactly the ids that its grammar can go on with, for every tokenizer."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Any

import jsonschema
import numpy as np
import pytest

from swarm.errors import BadArgument
from swarm.grammar import Constraint, Grammar, GrammarCompiler
from swarm.tokenizer import Tokenizer

TokenizerOf = Callable[[str], Tokenizer]
TOKENIZERS = ("v1", "v3", "tekken-v13")
PAD = 13
"""Ids that a model has beyond its tokenizer's; chosen so that the last byte of a mask is not full."""


def compiler_of(tokenizer: Tokenizer) -> GrammarCompiler:
    return GrammarCompiler(tokenizer, tokenizer.vocab_size + PAD)


@pytest.fixture(scope="module")
def compilers(tokenizer_of: TokenizerOf) -> Callable[[str], GrammarCompiler]:
    made: dict[str, GrammarCompiler] = {}
    return lambda name: made.setdefault(name, compiler_of(tokenizer_of(name)))


def ids_in(mask: bytes) -> list[int]:
    return np.flatnonzero(np.unpackbits(np.frombuffer(mask, np.uint8), bitorder="little")).tolist()


def walk(constraint: Constraint, tokenizer: Tokenizer, seed: int, most: int = 2000) -> list[int]:
    """Ids drawn evenly from what is allowed, until the answer ends."""
    rng, ids = random.Random(seed), []
    while not constraint.is_finished:
        token_id = rng.choice(ids_in(constraint.mask()))
        constraint.take(token_id)
        if token_id == tokenizer.eos_id:
            return ids
        ids.append(token_id)
        assert len(ids) < most
    return ids


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_mask_is_every_piece_that_fits_and_no_other(
    name: str, tokenizer_of: TokenizerOf, compilers: Callable[[str], GrammarCompiler]
) -> None:
    tokenizer = tokenizer_of(name)
    constraint = compilers(name).compile(Grammar.regex("[ab é]{1,3}"))

    def fitting(most: int) -> set[int]:
        """Up to `most` whole characters, the last of which may be half of é."""
        fits = re.compile(rb"(?:[ab ]|\xc3\xa9){1,%d}|(?:[ab ]|\xc3\xa9){0,%d}\xc3" % (most, most - 1))
        return {i for i, piece in enumerate(tokenizer.byte_pieces()) if piece is not None and fits.fullmatch(piece)}

    assert set(ids_in(constraint.mask())) == fitting(3)
    assert len(fitting(3)) > 4
    constraint.take(tokenizer.byte_pieces().index(b"a"))
    assert set(ids_in(constraint.mask())) == fitting(2) | {tokenizer.eos_id}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_no_text_grammar_allows_a_special_id_or_one_beyond_the_tokenizer(
    name: str, tokenizer_of: TokenizerOf, compilers: Callable[[str], GrammarCompiler]
) -> None:
    tokenizer = tokenizer_of(name)
    mask = compilers(name).compile(Grammar.regex("(?s).*")).mask()
    assert len(mask) == (tokenizer.vocab_size + PAD + 7) // 8
    allowed = set(ids_in(mask))
    has_text = {i for i, piece in enumerate(tokenizer.byte_pieces()) if piece is not None}
    assert allowed <= has_text | {tokenizer.eos_id}
    assert tokenizer.eos_id in allowed
    assert len(allowed) > 0.9 * len(has_text)


def test_a_model_of_fewer_ids_than_its_tokenizer_is_kept_within_them(tokenizer_of: TokenizerOf) -> None:
    constraint = GrammarCompiler(tokenizer_of("v3"), 1000).compile(Grammar.json_object())
    assert len(constraint.mask()) == 125
    assert ids_in(constraint.mask())


def test_an_end_that_the_model_has_no_id_for_is_refused(tokenizer_of: TokenizerOf) -> None:
    with pytest.raises(BadArgument, match="ends an answer with id 2"):
        GrammarCompiler(tokenizer_of("v3"), 2).compile(Grammar.json_object())


TEXTS = ("yes", "yes, no", "nö-«", '"', "\\x", "a\nb", "日本", " led by a space")


@pytest.mark.parametrize("name", TOKENIZERS)
def test_what_comes_out_is_what_the_grammar_describes(
    name: str, tokenizer_of: TokenizerOf, compilers: Callable[[str], GrammarCompiler]
) -> None:
    tokenizer, compiler = tokenizer_of(name), compilers(name)
    seen = set()
    for seed in range(12):
        text = tokenizer.decode(walk(compiler.compile(Grammar.choice(TEXTS)), tokenizer, seed), continues=True)
        assert text in TEXTS
        seen.add(text)
        text = tokenizer.decode(
            walk(compiler.compile(Grammar.regex(r"\d{3}/\w{1,9} ?")), tokenizer, seed), continues=True
        )
        assert re.fullmatch(r"[0-9]{3}/[0-9A-Za-z_]{1,9} ?", text)
        text = tokenizer.decode(walk(compiler.compile(Grammar.lark('start: "(" start ")" | "x"')), tokenizer, seed))
        assert re.fullmatch(r"\(*x\)*", text)
        assert text.count("(") == text.count(")")
    assert len(seen) > len(TEXTS) // 2


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_end_is_allowed_where_the_grammar_may_end_and_alone_where_it_must(
    name: str, tokenizer_of: TokenizerOf, compilers: Callable[[str], GrammarCompiler]
) -> None:
    tokenizer = tokenizer_of(name)
    constraint = compilers(name).compile(Grammar.regex("ab?"))
    assert tokenizer.eos_id not in ids_in(constraint.mask())
    constraint.take(next(i for i in ids_in(constraint.mask()) if tokenizer.byte_pieces()[i] == b"a"))
    assert tokenizer.eos_id in ids_in(constraint.mask())
    assert not constraint.is_finished
    constraint.take(next(i for i in ids_in(constraint.mask()) if i != tokenizer.eos_id))
    assert constraint.is_finished
    assert ids_in(constraint.mask()) == [tokenizer.eos_id]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_ids_taken_are_the_whole_state(
    name: str, tokenizer_of: TokenizerOf, compilers: Callable[[str], GrammarCompiler]
) -> None:
    """A compiler of another process, too, comes to the same masks: the tokenizer is read anew."""
    grammar = Grammar.json_schema(
        {
            "type": "object",
            "properties": {"a": {"type": "string", "maxLength": 9}, "b": {"type": "array", "maxItems": 3}},
        }
    )
    first, again = compilers(name).compile(grammar), compiler_of(tokenizer_of(name)).compile(grammar)
    rng, masks, ids = random.Random(5), [], []
    while not first.is_finished and len(ids) < 60:
        masks.append(first.mask())
        ids.append(rng.choice(ids_in(masks[-1])))
        first.take(ids[-1])
    for mask, token_id in zip(masks, ids, strict=True):
        assert again.mask() == mask
        again.take(token_id)


def test_an_id_that_is_not_allowed_is_refused(
    tokenizer_of: TokenizerOf, compilers: Callable[[str], GrammarCompiler]
) -> None:
    constraint = compilers("v3").compile(Grammar.choice(["yes"]))
    (no,) = tokenizer_of("v3").encode_inner("no")
    with pytest.raises(BadArgument, match=f"token {no} does not continue the choice grammar"):
        constraint.take(no)


@pytest.mark.parametrize(
    ("grammar", "why"),
    [
        (Grammar.json_schema({"type": "strin"}), "strin"),
        (Grammar.json_schema({"not": {"type": "string"}}), '"not"'),
        (Grammar.json_schema({"type": "array", "uniqueItems": True}), "uniqueItems"),
        (Grammar.json_schema({"oneOf": [{"type": "string"}, {"minLength": 3}]}), "oneOf"),
        (Grammar.json_schema({"not": {}, "x-guidance": {"lenient": True}}), '"not"'),
        (Grammar.json_schema({"type": "integer", "minimum": 5, "maximum": 3}), "minimum"),
        (Grammar.json_schema({"$ref": "https://example.com/schema.json"}), "example.com"),
        (Grammar.json_schema({"$ref": "file:///etc/hostname"}), "does not fetch"),
        (Grammar.json_schema(False), "no answer can meet"),
        (Grammar.regex("a("), "unclosed group"),
        (Grammar.regex("(?=a)b"), "look-around"),
        (Grammar.lark("start: nothing"), "nothing"),
        (Grammar.lark("start: " + "(" * 3000 + '"x"' + ")" * 3000), "nested"),
        (Grammar.json_schema({"type": "integer", "multipleOf": 982_451_653}), "multipleOf"),
        (Grammar("choice", "[1]"), "between texts"),
        (Grammar("json_schema", "{"), "not JSON"),
        (Grammar("tool_call", '{"tools": 1}'), "stored tools"),
        (Grammar("tool_call", '{"tools": [{"name": "a\\" x", "parameters": {}}], "max_calls": 1}'), "stored tools"),
        (Grammar("tool_call", '{"tools": [], "max_calls": 1}'), "stored tools"),
    ],
    ids=lambda value: value.source[:40] if isinstance(value, Grammar) else "",
)
def test_what_cannot_be_kept_is_refused_in_words(
    grammar: Grammar, why: str, compilers: Callable[[str], GrammarCompiler]
) -> None:
    with pytest.raises(BadArgument, match=re.escape(why)) as caught:
        compilers("v3").compile(grammar)
    assert "backtrace" not in caught.value.message
    assert len(caught.value.message) < 700


def test_a_schema_that_no_value_is_finite_enough_for_ends_in_words(
    tokenizer_of: TokenizerOf, compilers: Callable[[str], GrammarCompiler]
) -> None:
    """It compiles, for only its space shows that nothing can come of it."""
    constraint = compilers("v3").compile(Grammar.json_schema({"$ref": "#"}))
    with pytest.raises(BadArgument, match="json_schema grammar"):
        walk(constraint, tokenizer_of("v3"), 1)


PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 6}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "weather_map", "parameters": PARAMETERS}},
    {"type": "function", "function": {"name": "now"}},
]


def calls_in(ids: list[int], tokenizer: Tokenizer) -> list[tuple[str, Any]]:
    """(name, arguments) of each call, read back from the ids as the version's template writes them."""
    begin, arguments, call_id = (tokenizer.special_id(name) for name in ("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"))
    assert ids[0] == begin
    if tokenizer.version in ("v2", "v3", "v7"):
        assert ids.count(begin) == 1
        calls = json.loads(tokenizer.decode(ids[1:]))
        assert all(re.fullmatch("[a-zA-Z0-9]{9}", call.get("id", "a" * 9)) for call in calls)
        assert not any("id" in call for call in calls) or tokenizer.version != "v2"
        return [(call["name"], call["arguments"]) for call in calls]
    calls = []
    starts = [i for i, token_id in enumerate(ids) if token_id == begin]
    for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
        call = ids[start + 1 : end]
        at = call.index(arguments)
        name, *identity = tokenizer.decode(call[:at]), *()
        if call_id in call[:at]:
            assert tokenizer.version == "v11"
            middle = call.index(call_id)
            name, identity = tokenizer.decode(call[:middle]), [tokenizer.decode(call[middle + 1 : at])]
        assert all(re.fullmatch("[a-zA-Z0-9]{9}", text) for text in identity)
        calls.append((name, json.loads(tokenizer.decode(call[at + 1 :]))))
    return calls


@pytest.mark.parametrize("name", ["v2", "v3", "v7", "tekken-v3", "tekken-v11", "tekken-v13", "tekken-v15"])
def test_tool_calls_are_in_the_form_of_the_version_and_their_arguments_validate(
    name: str, tokenizer_of: TokenizerOf, compilers: Callable[[str], GrammarCompiler]
) -> None:
    tokenizer, compiler = tokenizer_of(name), compilers(name)

    def answers(grammar: Grammar) -> list[list[tuple[str, Any]]]:
        return [calls_in(walk(compiler.compile(grammar), tokenizer, seed), tokenizer) for seed in range(8)]

    required = answers(Grammar.tool_call(TOOLS))
    single = answers(Grammar.tool_call(TOOLS, "any", parallel=False))
    named = answers(Grammar.tool_call(TOOLS, "weather"))
    assert {len(calls) for calls in single + named} == {1}
    assert max(len(calls) for calls in required) > 1
    assert {called for calls in named for called, _ in calls} == {"weather"}
    assert {called for calls in required for called, _ in calls} == {"weather", "weather_map", "now"}
    for called, arguments in (call for calls in (*required, *single, *named) for call in calls):
        if called == "now":
            assert arguments == {}
        else:
            jsonschema.validate(arguments, PARAMETERS)


def test_a_tokenizer_without_the_tokens_cannot_call_tools(compilers: Callable[[str], GrammarCompiler]) -> None:
    with pytest.raises(BadArgument, match=r"\(v1\) has no \[TOOL_CALLS\] token"):
        compilers("v1").compile(Grammar.tool_call(TOOLS))
