"""Ids -> text, one at a time, without showing a character before it is whole. Knows no templates."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import Protocol

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
SPACE_MARK = "\N{LOWER ONE EIGHTH BLOCK}"
"""How SentencePiece writes a space inside of a piece."""


class StreamDecoder(Protocol):
    """One generation's text as it comes: all pushes and the flush, joined, are exactly what decoding all ids gives."""

    def push(self, token_id: int) -> str:
        """The text that this id completes: "" while a character is unfinished, or for an id that has no text.

        Raises: BadArgument for a negative id.
        """
        ...

    def flush(self) -> str:
        """What is left when no more ids come: replacement characters for bytes that never became a character."""
        ...


class ByteLevelDecoder:
    """For tekken: every id is bytes, and a special id (None) ends the run, cutting off an unfinished character."""

    __slots__ = ("_bytes_of", "_utf8")

    def __init__(self, bytes_of: Callable[[int], bytes | None]) -> None:
        self._bytes_of = bytes_of
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        piece = self._bytes_of(token_id)
        return self.flush() if piece is None else self._utf8.decode(piece)

    def flush(self) -> str:
        return self._utf8.decode(b"", final=True)


class SentencePieceDecoder:
    """For SentencePiece: ids are pieces of text, single bytes (byte fallback), or nothing (None, a control id).

    continues: the text goes on where another one ended, so that a first space stays; SentencePiece drops it at the
    beginning of a text. Each byte that belongs to no character becomes a replacement character of its own.
    """

    __slots__ = ("_at_start", "_pending", "_piece_of")

    def __init__(self, piece_of: Callable[[int], str | bytes | None], continues: bool) -> None:
        self._piece_of = piece_of
        self._pending = b""
        self._at_start = not continues

    def push(self, token_id: int) -> str:
        piece = self._piece_of(token_id)
        if isinstance(piece, bytes):
            text, self._pending = _whole_characters(self._pending + piece)
            self._at_start = False
            return text
        text = self.flush()
        if piece is None:
            return text
        if self._at_start:
            piece = piece.removeprefix(SPACE_MARK)
        self._at_start = False
        return text + piece.replace(SPACE_MARK, " ")

    def flush(self) -> str:
        text, rest = _whole_characters(self._pending)
        self._pending = b""
        while rest:
            more, rest = _whole_characters(rest[1:])
            text += REPLACEMENT + more
        return text


def _whole_characters(data: bytes) -> tuple[str, bytes]:
    """The characters that `data` begins with, and the tail that may yet become one.

    A byte that begins no character becomes REPLACEMENT, and reading goes on at the byte after it.
    """
    text = ""
    while data:
        try:
            return text + data.decode(), b""
        except UnicodeDecodeError as error:
            text += data[: error.start].decode()
            data = data[error.start :]
            if error.reason == "unexpected end of data":
                return text, data
            text, data = text + REPLACEMENT, data[1:]
    return text, b""
