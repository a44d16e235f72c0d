"""What a grammar compiler knows of a tokenizer: the bytes of each id, and how text amid other text is written."""

from __future__ import annotations

from typing import Any

import pytest

TEXTS = ("abc", '{"name": "é", "n": [1, 2]}', " led by a space", "日本", "line\nbreak\t", "  two", "")


@pytest.mark.parametrize("text", TEXTS)
def test_inner_text_is_exactly_the_bytes_of_its_pieces(case: Any, text: str) -> None:
    pieces = case.ours.byte_pieces()
    ids = case.ours.encode_inner(text)
    assert b"".join(pieces[token_id] or b"?" for token_id in ids) == text.encode()
    assert case.ours.decode(ids, continues=True) == text


def test_every_id_has_bytes_or_is_special(case: Any) -> None:
    pieces = case.ours.byte_pieces()
    assert len(pieces) == case.ours.vocab_size
    without = {token_id for token_id, piece in enumerate(pieces) if piece is None}
    special = {token_id for token_id in range(case.ours.vocab_size) if case.ours.is_special(token_id)}
    assert special <= without
    assert len(without - special) <= 1  # SentencePiece's unknown id, whose text is never meant
    assert {bytes([byte]) for byte in range(256)} <= set(pieces)
