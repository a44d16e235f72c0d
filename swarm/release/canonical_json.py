"""One spelling for every JSON value, so that a signature over its bytes is a signature over what it says.

RFC 8785 for values without floating point: keys in the order of their UTF-16 code units, no spaces, UTF-8. Numbers are
whole; anything else is refused rather than spelled in one of many ways.
"""

from __future__ import annotations

import json
from typing import Any

from swarm.errors import LocalProtocolError

MAX_INTEGER = (1 << 53) - 1
"""Larger numbers differ between JSON readers (RFC 8785, 3.2.2.3)."""


def canonical_bytes(value: Any) -> bytes:
    """Raises: LocalProtocolError for floats, huge numbers, keys that are no text, or text that is no UTF-8."""
    try:
        return json.dumps(_ordered(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except UnicodeEncodeError:
        raise LocalProtocolError("a lone surrogate has no canonical spelling") from None


def _ordered(value: Any) -> Any:
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, int) and abs(value) <= MAX_INTEGER:
        return value
    if isinstance(value, (list, tuple)):
        return [_ordered(inner) for inner in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _ordered(value[key]) for key in sorted(value, key=lambda key: key.encode("utf-16-be"))}
    raise LocalProtocolError(f"{value!r:.80} has no canonical spelling: only text, whole numbers, lists and objects")
