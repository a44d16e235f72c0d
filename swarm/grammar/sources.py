"""A Grammar as llguidance reads it: JSON that lists named grammars, the first being the whole."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from swarm.errors import BadArgument
from swarm.grammar.bounds import check_bounds
from swarm.grammar.dates import with_exact_dates
from swarm.grammar.grammar import Grammar, checked_calls, checked_choices, read_json

if TYPE_CHECKING:
    from swarm.grammar.constraint import Vocabulary

_JSON_OPTIONS = {
    # One line, with or without a space, as the templates write it: given free blanks, a weak model writes nothing else.
    "whitespace_flexible": False,
    "item_separator": ", ?",
    "key_separator": ": ?",
    "coerce_one_of": False,  # this one and the next would let through what the schema does not accept
    "lenient": False,
}

_CALL_ID = "/[a-zA-Z0-9]{9}/"


def source_for(grammar: Grammar, vocabulary: Vocabulary) -> str:
    """Raises: BadArgument for a source that is not even of its kind, or that this tokenizer cannot express."""
    match grammar.kind:
        case "json_object" | "json_schema":
            asked = read_json(grammar.source, "the JSON schema")
            check_bounds([asked], "the JSON schema")
            schema = _of_schema(asked, "the JSON schema")
            return _grammars({"lark_grammar": 'start: " "? @value'}, {"name": "value", **schema})
        case "regex":
            return _of_regex(grammar.source)
        case "choice":
            texts = checked_choices(read_json(grammar.source, "the choice"))
            return _of_regex("|".join(map(_literally, texts)))
        case "tool_call":
            return _tool_calls(read_json(grammar.source, "the tools"), vocabulary)
        case _:
            return _grammars({"lark_grammar": grammar.source})


def _grammars(*grammars: dict[str, Any]) -> str:
    return json.dumps({"grammars": grammars}, ensure_ascii=False)


def _of_schema(schema: object, what: str) -> dict[str, Any]:
    if schema is True:
        schema = {}
    if not isinstance(schema, dict):
        raise BadArgument(f"{what} is {schema!r:.80}, which no answer can meet; it must be an object")
    return {"json_schema": {**with_exact_dates(schema), "x-guidance": _JSON_OPTIONS}}


def _of_regex(pattern: str) -> str:
    from llguidance import regex_to_lark

    return _grammars({"lark_grammar": f"start: /{regex_to_lark(pattern, use_ascii='dw')}/"})


def _literally(text: str) -> str:
    """A regular expression that matches this text only."""
    return "".join(c if c.isalnum() else f"\\x{{{ord(c):x}}}" for c in text)


def _tool_calls(asked: Any, vocabulary: Vocabulary) -> str:
    """The calls as this version's template writes them: a JSON list behind [TOOL_CALLS], or (from v11 on) one
    [TOOL_CALLS] and [ARGS] to each call.
    """
    tools, max_calls = checked_calls(asked)
    check_bounds([tool["parameters"] for tool in tools], "the tools' parameters")
    version = vocabulary.version
    begin = _special(vocabulary, "[TOOL_CALLS]")
    if version in ("v2", "v3", "v7"):
        call_id = "" if version == "v2" else " id?"
        calls = [
            json.dumps(f'{{"name": "{tool["name"]}", "arguments": ') + f' @arguments_{i}{call_id} "}}"'
            for i, tool in enumerate(tools)
        ]
        more = f' (", " call){{0,{max_calls - 1}}}' if max_calls > 1 else ""
        lines = [f'start: {begin} " "? "[" call{more} "]"']
        lines += [f'id: ", \\"id\\": \\"" {_CALL_ID} "\\""'] if call_id else []
    else:
        arguments = _special(vocabulary, "[ARGS]")
        call_id = f" ({_special(vocabulary, '[CALL_ID]')} {_CALL_ID})?" if version == "v11" else ""
        calls = [
            f"{begin} {json.dumps(tool['name'])}{call_id} {arguments} @arguments_{i}" for i, tool in enumerate(tools)
        ]
        lines = [f"start: call{{1,{max_calls}}}" if max_calls > 1 else "start: call"]
    lines.append(f"call: {' | '.join(calls)}")
    schemas = [
        {"name": f"arguments_{i}", **_of_schema(tool["parameters"], f"the parameters of tool {tool['name']}")}
        for i, tool in enumerate(tools)
    ]
    return _grammars({"lark_grammar": "\n".join(lines)}, *schemas)


def _special(vocabulary: Vocabulary, name: str) -> str:
    """A control token as Lark of llguidance names it."""
    token_id = vocabulary.special_id(name)
    if token_id is None:
        raise BadArgument(
            f"this release's tokenizer ({vocabulary.version}) has no {name} token, so its model cannot call tools; "
            "leave the tools out, or use an instruct release of a newer version"
        )
    return f"<[{token_id}]>"
