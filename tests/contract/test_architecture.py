"""Every test that ARCHITECTURE.md names as a proof exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "ARCHITECTURE.md").read_text()
FILES = sorted(set(re.findall(r"`(tests/[a-z_/]+?\.py)", PAGE)))


def named_tests() -> list[tuple[str, str]]:
    """(file, test); `::name` alone is of the file that was named before it in its row."""
    found = []
    for row in PAGE.splitlines():
        file = ""
        for path, name in re.findall(r"`(tests/[a-z_/]+\.py)?(?:::(test_\w+))?`", row):
            file = path or file
            if name:
                found.append((file, name))
    return found


@pytest.mark.parametrize("file", FILES)
def test_a_named_file_is_there(file: str) -> None:
    assert (ROOT / file).is_file()


@pytest.mark.parametrize(("file", "name"), named_tests())
def test_a_named_test_is_there(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text())
    functions = (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))
    assert name in {function.name for function in functions}
