"""What an answer may be, as plain values: checked when built, and kept in a journal as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from swarm.errors import BadArgument

MAX_GRAMMAR_BYTES = 1 << 18
"""Of a grammar's source. Compiling is bounded by work, not by size; this bounds what a journal and a request carry."""

MAX_DEPTH = 64
"""Of a schema: lists and objects within each other. Readers of deeper ones recurse."""

MAX_TOOL_CALLS = 16
"""In one answer: a model that finds no end must not fill its whole context with calls."""

MAX_CHOICES = 4096

KINDS = ("json_object", "json_schema", "regex", "lark", "choice", "tool_call")

_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class Grammar:
    """What an answer may be. Build it with one of the class methods; `to_json` and `from_json` are for storing it.

    kind: one of KINDS. source: a JSON schema as JSON text, a regular expression (Rust's syntax, over the whole answer),
    a grammar in llguidance's dialect of Lark, a JSON list of texts, or for tool calls a JSON object of tools, choice
    and parallel. Whether the source means anything is found out when it is compiled.
    Raises: BadArgument.
    """

    kind: str
    source: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise BadArgument(f"a grammar of kind {self.kind!r} does not exist; choose one of {', '.join(KINDS)}")
        if not isinstance(self.source, str) or not self.source:
            raise BadArgument(f"the {self.kind} grammar is empty; say what the answer may be")
        try:
            n_bytes = len(self.source.encode())
        except UnicodeEncodeError:
            raise BadArgument(f"the {self.kind} grammar holds half a surrogate pair: it is not Unicode") from None
        if n_bytes > MAX_GRAMMAR_BYTES:
            raise BadArgument(
                f"the {self.kind} grammar is {n_bytes} bytes long, and {MAX_GRAMMAR_BYTES} are the most; shorten it"
            )

    @classmethod
    def json_object(cls) -> Grammar:
        """Any JSON object."""
        return cls("json_object", '{"type":"object"}')

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | bool | str) -> Grammar:
        """A JSON value that this schema (or this JSON text of one) accepts. Keywords that nobody could keep are refused
        when it is compiled.
        """
        if isinstance(schema, str):
            schema = read_json(schema, "the JSON schema")
        if not isinstance(schema, Mapping | bool):
            raise BadArgument(f'the JSON schema is {schema!r:.80}; it must be an object such as {{"type": "object"}}')
        return cls("json_schema", _write_json(schema, "the JSON schema"))

    @classmethod
    def regex(cls, pattern: str) -> Grammar:
        """Text that this regular expression matches as a whole. \\d and \\w are ASCII, as in JSON schemas."""
        return cls("regex", pattern)

    @classmethod
    def lark(cls, source: str) -> Grammar:
        """Text of a context-free language, in llguidance's dialect of Lark: `start: "yes" | "no"`."""
        return cls("lark", source)

    @classmethod
    def choice(cls, texts: Sequence[str]) -> Grammar:
        """One of these texts, exactly."""
        return cls("choice", _write_json(list(checked_choices(texts)), "the choice"))

    @classmethod
    def tool_call(
        cls, tools: Sequence[Mapping[str, Any]], choice: str = "required", *, parallel: bool = True
    ) -> Grammar:
        """Calls of these tools, in the form of the tokenizer's version, with arguments that their schemas accept.

        tools: as in the chat completions API: {"type": "function", "function": {"name", "parameters"}}. choice:
        'required' (or 'any') for at least one call of any of them, or the name of the one to call, once. parallel:
        False for exactly one call.
        """
        signatures = [_signature(tool) for tool in tools]
        names = [signature["name"] for signature in signatures]
        if len(set(names)) != len(names):
            raise BadArgument(f"two tools have the same name ({', '.join(sorted(names))}); rename one")
        if choice not in ("any", "required"):
            signatures = [signature for signature in signatures if signature["name"] == choice]
        if not signatures:
            raise BadArgument(f"no tool is named {choice!r}; there are: {', '.join(names) or 'none'}")
        most = 1 if choice in names or not parallel else MAX_TOOL_CALLS
        return cls("tool_call", _write_json({"tools": signatures, "max_calls": most}, "the tools"))

    @property
    def may_begin_with_space(self) -> bool:
        """Whether one space before the answer is allowed, and no part of it: as a SentencePiece model writes JSON."""
        return self.kind in ("json_object", "json_schema", "tool_call")

    def to_json(self) -> dict[str, str]:
        return {"kind": self.kind, "source": self.source}

    @classmethod
    def from_json(cls, value: object) -> Grammar:
        """Raises: BadArgument for anything that to_json does not make."""
        if not isinstance(value, dict) or value.keys() != {"kind", "source"}:
            raise BadArgument("a stored grammar has a kind and a source, and this has not")
        return cls(value["kind"], value["source"])


def checked_choices(texts: object) -> Sequence[str]:
    """Raises: BadArgument for what is no choice between texts."""
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) and text for text in texts):
        raise BadArgument("a choice is between texts, none of them empty, such as ['yes', 'no']")
    if not 0 < len(texts) <= MAX_CHOICES:
        raise BadArgument(f"a choice between {len(texts)} texts cannot be made; give 1 to {MAX_CHOICES}")
    return texts


def checked_calls(stored: object) -> tuple[list[dict[str, Any]], int]:
    """(signatures, most calls) of a tool_call grammar's source. Raises: BadArgument for what tool_call never makes."""
    tools, most = (stored.get("tools"), stored.get("max_calls")) if isinstance(stored, dict) else (None, None)
    if not isinstance(tools, list) or not tools or not isinstance(most, int) or not 1 <= most <= MAX_TOOL_CALLS:
        raise BadArgument("the stored tools are not those of a tool_call grammar; build it anew")
    for tool in tools:
        name = tool.get("name") if isinstance(tool, dict) else None
        if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name) or not isinstance(tool.get("parameters"), dict):
            raise BadArgument("the stored tools have one without a name or parameters; build the grammar anew")
    return tools, most


def _signature(tool: object) -> dict[str, Any]:
    """{"name", "parameters"} of one tool of the API."""
    function = tool.get("function") if isinstance(tool, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
        raise BadArgument(
            f"a tool is {tool!r:.120}; it must have a function with a name of 1 to 64 letters, digits, _ and -"
        )
    parameters = function.get("parameters")
    if parameters is None:
        parameters = {"type": "object", "properties": {}, "additionalProperties": False}
    if not isinstance(parameters, Mapping):
        raise BadArgument(f"the parameters of tool {name} are {parameters!r:.80}; they must be a JSON schema")
    return {"name": name, "parameters": parameters}


def _write_json(value: object, what: str) -> str:
    """Compact JSON text. Raises: BadArgument for what JSON cannot say, or says too deep."""
    _check_depth(value, what)
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise BadArgument(f"{what} cannot be written as JSON: {error}") from error


def read_json(text: str, what: str) -> Any:
    """The value of JSON text. Raises: BadArgument when it is none, or too deep."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise BadArgument(f"{what} is more than {MAX_DEPTH} levels deep; flatten it") from None
    except ValueError as error:
        raise BadArgument(f"{what} is not JSON: {error}") from error
    _check_depth(value, what)
    return value


def _check_depth(value: object, what: str) -> None:
    """Breadth first, so that no depth breaks the checker."""
    level: Iterable[object] = [value]
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return
    raise BadArgument(f"{what} is more than {MAX_DEPTH} levels deep; flatten it")


def _children(value: object) -> Iterable[object]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple) else ()
