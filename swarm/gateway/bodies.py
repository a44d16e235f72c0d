"""A request's body: bounded bytes off the connection, then JSON of bounded depth, then fields that are what they claim.

Knows no endpoint. null counts as a field that was left out, as both dialects have it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence, Set
from typing import Any

from starlette.types import Receive, Scope

from swarm.gateway.faults import BadField, Fault, Refused

JSON_TYPES = ("application/json", "text/json")

MAX_WHOLE = 2**63 - 1
"""Of a whole number without a bound of its own: what is larger means nothing, and costs more than it looks."""

MAX_VALUES = 300_000
"""Of a body's JSON, some 40 ms of work that nothing can interrupt. A body of that many commas and brackets, those of
its texts included, is more than any model's context holds.
"""


class ClientGone(Exception):
    """The connection ended before the request did, or before its answer."""


async def read_body(scope: Scope, receive: Receive, max_bytes: int, take_room: Callable[[int], None]) -> bytes:
    """The body of a request that says it is JSON. take_room: told of each part's bytes before more of it is read.

    A content type other than JSON is refused: a page of another site can send a form without being asked for leave.
    Raises: Refused (too large, not JSON), ClientGone, and what take_room raises.
    """
    headers = {name: value for name, value in scope["headers"] if name in (b"content-type", b"content-length")}
    content_type = headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
    if content_type not in JSON_TYPES:
        problem = f"the content type is {content_type or 'missing'}; send the header `Content-Type: application/json`"
        raise Refused(Fault(415, problem, code="unsupported_content_type"))
    declared = headers.get(b"content-length", b"0")
    if declared.isdigit() and int(declared[:20]) > max_bytes:
        raise _too_large(max_bytes)
    parts: list[bytes] = []
    n_bytes = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        n_bytes += len(part)
        if n_bytes > max_bytes:
            raise _too_large(max_bytes)
        take_room(len(part))
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def parse_json(body: bytes, max_depth: int) -> dict[str, Any]:
    """The body's JSON object. Raises: Refused (not JSON, too deep, too many values)."""
    if len(body) > MAX_VALUES and sum(map(body.count, (b",", b"[", b"{"))) > MAX_VALUES:
        message = f"the request's JSON has more than {MAX_VALUES} commas and brackets; send it in parts"
        raise Refused(Fault(413, message, code="too_large"))
    try:
        value = json.loads(body, parse_constant=_no_constant)
    except RecursionError:
        raise _too_deep(max_depth) from None
    except ValueError as error:  # not JSON, not UTF-8, or a number of thousands of digits
        message = f"the request's body is not JSON: {str(error)[:200]}"
        raise Refused(Fault(400, message, code="invalid_json")) from None
    if not isinstance(value, dict):
        raise Refused(Fault(400, "the request's body must be a JSON object", code="invalid_json"))
    level: list[Any] = [value]
    for _ in range(max_depth):
        level = [child for parent in level for child in _children(parent) if isinstance(child, dict | list)]
        if not level:
            return value
    raise _too_deep(max_depth)


def _too_large(max_bytes: int) -> Refused:
    return Refused(Fault(413, f"the request's body is larger than {max_bytes} bytes; shorten it", code="too_large"))


def _too_deep(max_depth: int) -> Refused:
    message = f"the request's JSON is more than {max_depth} levels deep; flatten it"
    return Refused(Fault(400, message, code="invalid_json"))


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _children(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


class Fields:
    """A body's fields, each taken once under the type that it must have; what was never taken is unknown.

    foreign: fields of the other dialect, which count as unknown whoever takes them.
    Raises: BadField, naming the field, from every method that takes one.
    """

    def __init__(self, body: dict[str, Any], foreign: Set[str] = frozenset()) -> None:
        self._body = body
        self._foreign = foreign
        self._taken: set[str] = set()

    @property
    def unknown(self) -> tuple[str, ...]:
        """Names of the fields that nobody took, those left at null included."""
        return tuple(name for name in self._body if name not in self._taken)

    def take(self, name: str) -> Any:
        """The value whatever it is; None when it is not there."""
        if name in self._foreign:
            return None
        self._taken.add(name)
        return self._body.get(name)

    def ignore(self, *names: str) -> None:
        """Fields that change nothing about the answer."""
        self._taken.update(set(names) - self._foreign)

    def text(self, name: str) -> str | None:
        return self._of(name, str, "a text", "string_type")

    def required_text(self, name: str) -> str:
        value = self.text(name)
        if value is None:
            raise BadField((name,), f"the field {name} is missing; it must be a text", "missing")
        return value

    def flag(self, name: str) -> bool:
        """False when it is not there."""
        return bool(self._of(name, bool, "true or false", "bool_type"))

    def whole(self, name: str, low: int | None = None, high: int | None = None) -> int | None:
        value = self.take(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise BadField((name,), f"{name} is {shown(value)}; it must be a whole number", "int_type")
        self._check_range(name, value, low, high)
        self._check_range(name, value, -MAX_WHOLE - 1, MAX_WHOLE)
        return value

    def number(self, name: str, low: float | None = None, high: float | None = None) -> float | None:
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
            raise BadField((name,), f"{name} is {shown(value)}; it must be a number", "float_type")
        self._check_range(name, value, low, high)
        return value

    def object(self, name: str) -> dict[str, Any] | None:
        return self._of(name, dict, "an object", "dict_type")

    def list(self, name: str) -> list[Any] | None:
        return self._of(name, list, "a list", "list_type")

    def texts(self, name: str) -> tuple[str, ...]:
        """A text, or a list of texts."""
        value = self.take(name)
        values = [value] if isinstance(value, str) else [] if value is None else value
        if not isinstance(values, list) or not all(isinstance(text, str) for text in values):
            raise BadField((name,), f"{name} is {shown(value)}; it must be a text or a list of texts", "string_type")
        return tuple(values)

    def must_be(self, name: str, harmless: Sequence[Any], why: str) -> None:
        """A field that this gateway cannot honour, unless it is at a value that asks for nothing."""
        value = self.take(name)
        if value is not None and value not in harmless:
            raise BadField((name,), f"{name} is {shown(value)}, but {why}; leave it out", "unsupported_value")

    def _of(self, name: str, kind: type, words: str, problem: str) -> Any:
        value = self.take(name)
        if value is not None and not isinstance(value, kind):
            raise BadField((name,), f"{name} is {shown(value)}; it must be {words}", problem)
        return value

    def _check_range(self, name: str, value: float | None, low: float | None, high: float | None) -> None:
        if value is not None and ((low is not None and value < low) or (high is not None and value > high)):
            words = f"from {low} to {high}" if high is not None else f"at least {low}"
            raise BadField((name,), f"{name} is {shown(value)}; it must be {words}", "out_of_range")


def shown(value: Any) -> str:
    """A value in an error's text, cut short."""
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 60 else f"{text[:57]}..."
