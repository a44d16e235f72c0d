"""Finds the tool calls in a stream of token ids, by the special ids that mark them and never by their text.

Text that a model merely writes, "[TOOL_CALLS]" included, has no such ids and stays text. Every form that Mistral's
templates have is read: a JSON list after the mark (v2 to v7), and a name, maybe a call id, and arguments between marks
(v11, v13 and later). A call counts when it names one of the request's tools and its arguments are an object that the
tool's schema accepts; anything else is handed back as the text that it was. Does NOT call tools.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from swarm.gateway.messages import TOOL_CALL_ID_CHARS
from swarm.tokenizer import Tokenizer

_ID_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


MAX_CHECKS = 10_000
"""Of keywords against values, for one call: some 50 ms, during which nothing else is served."""

_UNCHECKED = ("pattern", "patternProperties", "unevaluatedItems", "unevaluatedProperties")
"""Keywords whose work nothing bounds."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call. arguments: JSON text of an object."""

    id: str
    name: str
    arguments: str


class ToolCallReader:
    """Reads one answer: push() each id with its text, then finish()."""

    def __init__(self, tokenizer: Tokenizer, tools: Sequence[dict[str, Any]]) -> None:
        self._tokenizer = tokenizer
        self._schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
        self._mark = tokenizer.special_id("[TOOL_CALLS]")
        self._marks = {
            token_id: name for name in ("[CALL_ID]", "[ARGS]") if (token_id := tokenizer.special_id(name)) is not None
        }
        self._parts: list[tuple[str, list[int]]] | None = None  # (the mark, the ids after it) of the call under way
        self.n_calls = 0

    @property
    def is_in_call(self) -> bool:
        return self._parts is not None

    def push(self, token_id: int, text: str) -> tuple[str, tuple[ToolCall, ...]]:
        """The text that this id adds to the answer, and the calls that it completes."""
        if token_id == self._mark:
            words, calls = self.finish()
            self._parts = [("[TOOL_CALLS]", [])]
            return text + words, calls
        if self._parts is None:
            return text, ()
        if token_id in self._marks:
            self._parts.append((self._marks[token_id], []))
        elif not self._tokenizer.is_special(token_id):
            self._parts[-1][1].append(token_id)
        return "", ()

    def finish(self) -> tuple[str, tuple[ToolCall, ...]]:
        """What is under way when no more comes: calls, or the text of what is none."""
        if self._parts is None:
            return "", ()
        texts = [(mark, self._tokenizer.decode(ids, continues=True)) for mark, ids in self._parts]
        self._parts = None
        calls = self._calls(texts)
        if calls is None:
            return "".join(mark + text for mark, text in texts), ()
        self.n_calls += len(calls)
        return "", calls

    def _calls(self, texts: list[tuple[str, str]]) -> tuple[ToolCall, ...] | None:
        by_mark = dict(texts)
        if "[ARGS]" in by_mark:
            call = self._call(by_mark["[TOOL_CALLS]"].strip(), _json(by_mark["[ARGS]"]), by_mark.get("[CALL_ID]"))
            return None if call is None else (call,)
        listed = _json(by_mark["[TOOL_CALLS]"])
        if not isinstance(listed, list) or not listed:
            return None
        calls = [
            self._call(entry.get("name"), entry.get("arguments"), entry.get("id")) if isinstance(entry, dict) else None
            for entry in listed
        ]
        return None if None in calls else tuple(call for call in calls if call is not None)

    def _call(self, name: object, arguments: object, call_id: object) -> ToolCall | None:
        """None when it is no call of one of the tools."""
        if not isinstance(name, str) or name not in self._schemas or not isinstance(arguments, dict):
            return None
        if not is_accepted(arguments, self._schemas[name]):
            return None
        given = call_id.strip() if isinstance(call_id, str) else ""
        is_sane = len(given) == TOOL_CALL_ID_CHARS and given.isascii() and given.isalnum()
        try:
            text = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
        except ValueError:  # 1e999 has become infinity, which JSON cannot say
            return None
        return ToolCall(given if is_sane else new_call_id(), name, text)


def new_call_id() -> str:
    return "".join(secrets.choice(_ID_LETTERS) for _ in range(TOOL_CALL_ID_CHARS))


def is_accepted(arguments: dict[str, Any], schema: dict[str, Any]) -> bool:
    """Whether the schema accepts them; True as well for a schema that makes no sense, which can refuse nothing, and for
    one that asks for more than MAX_CHECKS.

    The schema came with the request: nothing that it refers to elsewhere is fetched, and its regular expressions are
    not run, since one of them may take for ever.
    """
    from jsonschema.exceptions import ValidationError
    from referencing import Registry

    try:
        _bounded_validator()(_without_dialects(schema), registry=Registry()).validate(arguments)
    except ValidationError:
        return False
    except Exception:  # of a schema that anybody may send: what the checker makes of it is no verdict on the call
        return True
    return True


def _without_dialects(schema: Any) -> Any:
    """The schema less every $schema in it: at each, jsonschema goes on with a checker of its own, without bounds."""
    if isinstance(schema, list):
        return [_without_dialects(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: _without_dialects(part)
        for name, part in schema.items()
        if name != "$schema" or not isinstance(part, str)  # else it describes a property of that name
    }


class _TooManyChecks(Exception):
    """A schema can ask for 2 ** 30 checks in a few lines."""


def _bounded_validator() -> Any:
    """A validator class for one use, that stops after MAX_CHECKS."""
    from jsonschema.validators import Draft202012Validator, extend

    n_left = MAX_CHECKS

    def counted(check: Callable[..., Any]) -> Callable[..., Any]:
        def checked(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
            nonlocal n_left
            n_left -= 1
            if n_left < 0:
                raise _TooManyChecks
            return check(validator, value, instance, schema)

        return checked

    unchecked = dict.fromkeys(_UNCHECKED, _any)
    checks = {**Draft202012Validator.VALIDATORS, **unchecked, "additionalProperties": _others}
    return extend(Draft202012Validator, {name: counted(check) for name, check in checks.items()})


def _any(*_: object) -> tuple[()]:
    return ()


def _others(validator: Any, allowed: Any, instance: Any, schema: Any) -> Any:
    """additionalProperties, where no regular expression says which properties those are."""
    from jsonschema.validators import Draft202012Validator

    if "patternProperties" in schema:
        return ()
    return Draft202012Validator.VALIDATORS["additionalProperties"](validator, allowed, instance, schema) or ()


def _json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")
