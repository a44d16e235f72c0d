"""asyncio.wait_for can lose a cancellation on Python 3.11, and then a node never stops; asyncio.timeout does not."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]


def uses_of_wait_for(source: str) -> list[int]:
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute)
        and node.attr == "wait_for"
        and isinstance(node.value, ast.Name)
        and node.value.id == "asyncio"
    ]


def test_nothing_waits_with_wait_for() -> None:
    found = {
        str(path.relative_to(ROOT)): lines
        for top in ("swarm", "node")
        for path in (ROOT / top).rglob("*.py")
        if (lines := uses_of_wait_for(path.read_text()))
    }
    assert found == {}


def test_a_use_is_found() -> None:
    assert uses_of_wait_for("import asyncio\nasync def f(e):\n    await asyncio.wait_for(e.wait(), 1)\n") == [3]
