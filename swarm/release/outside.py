"""Reading what came from outside: bounded JSON and typed fields. Everything wrong with it raises CorruptRelease."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from swarm.errors import CorruptRelease

REFETCH = "verify the download or fetch the release again from a seeder you trust"


def show(value: object, n_chars: int = 120) -> str:
    """A foreign value for a message: escaped and cut short, so that it cannot flood or fake a terminal's lines."""
    if isinstance(value, list) and len(value) <= 8 and all(isinstance(v, (int, float)) for v in value):
        return "[" + ", ".join(show(v, 24) for v in value) + "]"
    if isinstance(value, (list, dict)):
        return f"a {type(value).__name__} of {len(value)} values"
    if isinstance(value, int) and abs(value) >= 1 << 128:
        return "a huge number"
    text = ascii(value[: n_chars + 1] if isinstance(value, str) else value)
    return text if len(text) <= n_chars else text[:n_chars] + "…"


def parse_json_object(data: bytes, what: str, max_values: int) -> dict[str, Any]:
    """The JSON object in data. what: names it in messages, such as the file's path.

    max_values bounds memory: a header of 100 MB could otherwise unfold to gigabytes of small lists. Names that appear
    twice in one object are refused, since readers differ in which of the two they take.
    Raises: CorruptRelease.
    """
    n_values = data.count(b",") + data.count(b"[") + data.count(b"{")
    if n_values > max_values:
        raise CorruptRelease(f"{what} holds about {n_values} JSON values, and {max_values} is the most; {REFETCH}")
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_object_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise CorruptRelease(f"{what} is not the JSON that it should be ({show(str(error))}); {REFETCH}") from None
    if not isinstance(value, dict):
        raise CorruptRelease(f"{what} is not a JSON object; {REFETCH}")
    return value


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name appears twice in one object")
    return found


class Fields:
    """Typed look-ups in one JSON object. Raises: CorruptRelease naming the object, the key and the value."""

    def __init__(self, values: Mapping[str, Any], what: str) -> None:
        self.values = values
        self.what = what

    def wrong(self, key: str, wanted: str) -> CorruptRelease:
        if key not in self.values:
            return CorruptRelease(f"{self.what} lacks {key!r} ({wanted}); {REFETCH}")
        return CorruptRelease(f"{self.what}: {key!r} is {show(self.values[key])}, not {wanted}; {REFETCH}")

    def has(self, key: str) -> bool:
        """The key is there and not null."""
        return self.values.get(key) is not None

    def positive_int(self, key: str, default: int | None = None) -> int:
        if not self.has(key) and default is not None:
            return default
        value = self.values.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 1 << 40:
            raise self.wrong(key, "a whole number above 0")
        return value

    def positive_float(self, key: str, default: float | None = None) -> float:
        if not self.has(key) and default is not None:
            return default
        value = self.values.get(key)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < 1e18:
            raise self.wrong(key, "a number above 0")
        return float(value)

    def boolean(self, key: str, default: bool) -> bool:
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def object(self, key: str) -> Fields:
        value = self.values.get(key)
        if not isinstance(value, dict):
            raise self.wrong(key, "an object")
        return Fields(value, f"{self.what}: {key!r}")
