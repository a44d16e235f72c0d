"""Which of a release's files is its tokenizer, by name alone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

_SENTENCEPIECE = re.compile(r".*\.model(?:\.v(\d{1,3})(?:m\d{1,3})?)?")
_TEKKEN = re.compile(r".*tekken.*\.json")


def pick_tokenizer_file(names: Iterable[str]) -> str | None:
    """The file to load, of paths relative to the release's folder; None if there is none that we can read.

    Prefers the file nearest to the root; then tekken.json, which Mistral ships beside a SentencePiece model only where
    it replaces it; then the SentencePiece model of the highest version, a bare tokenizer.model last.
    """
    ranked = [(rank, name) for name in names if (rank := _rank(name)) is not None]
    return min(ranked)[1] if ranked else None


def _rank(name: str) -> tuple[int, int, int] | None:
    """(depth, kind, minus the version): smaller is better. None: not a tokenizer."""
    path = PurePosixPath(name)
    if _TEKKEN.fullmatch(path.name):
        return len(path.parts), 0, 0
    if match := _SENTENCEPIECE.fullmatch(path.name):
        return len(path.parts), 1, -int(match[1] or 0)
    return None
