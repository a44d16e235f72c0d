"""What the generator yields: plain values, and the rule that keeps some of them unseen.

Knows nothing of how any kind is worded.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

HELD_OUT_ONE_IN = 10
ALWAYS_TRAINED = "common|"  # keys of everyday openings ("Hello!"), which are never held out


@dataclass(frozen=True, slots=True)
class Turn:
    """A question of the user and the assistant's answer."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation; `key` says what is being asked, apart from spelling."""

    kind: str
    key: str
    turns: tuple[Turn, ...]
    system: str = ""


@dataclass(frozen=True, slots=True)
class ToolChat:
    """A question, the one tool call that it needs, the tool's result, and the answer made of it."""

    kind: str
    key: str
    tools: tuple[dict[str, Any], ...]
    question: str
    call_name: str
    call_arguments: dict[str, Any]
    result: str
    answer: str


@dataclass(frozen=True, slots=True)
class Infill:
    """A Python function with a span cut out. `checks`: asserts that prefix + middle + suffix must pass."""

    kind: str
    key: str
    prefix: str
    middle: str
    suffix: str
    checks: str


@dataclass(frozen=True, slots=True)
class Text:
    """Raw text, outside of any chat template."""

    kind: str
    key: str
    text: str


Fact = tuple[str, tuple[str, ...], str]
"""Key, wordings of the question, answer."""

Document = Chat | ToolChat | Infill | Text


@dataclass(frozen=True, slots=True)
class Kind:
    """A family of documents. `weight`: how often it is drawn, relative to the others."""

    name: str
    weight: float
    make: Callable[[random.Random], Document]


def is_held_out(kind: str, key: str) -> bool:
    """Whether documents with this key are kept from training: one key in ten, the same in every process."""
    if key.startswith(ALWAYS_TRAINED):
        return False
    digest = blake2b(f"{kind}\n{key}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") % HELD_OUT_ONE_IN == 0
