"""Logprobs as the APIs tell them: each token by its text and bytes. Texts of single ids may be parts of characters."""

from __future__ import annotations

from typing import Any

from swarm.client import TokenEvent
from swarm.tokenizer import Tokenizer


class TokenTexts:
    """The text of single ids of one tokenizer, read once."""

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        self._pieces: list[bytes | None] = list(tokenizer.byte_pieces()) if tokenizer is not None else []

    def bytes_of(self, token_id: int) -> bytes:
        """b"" for a special id."""
        return (self._pieces[token_id] if token_id < len(self._pieces) else None) or b""

    def text_of(self, token_id: int) -> str:
        return self.bytes_of(token_id).decode("utf-8", "replace")

    def chat_entry(self, event: TokenEvent) -> dict[str, Any]:
        """An element of choices[].logprobs.content."""
        alternatives = [self._told(token_id, logprob) for token_id, logprob in event.top_logprobs]
        return {**self._told(event.id, event.logprob), "top_logprobs": alternatives}

    def text_entry(self, event: TokenEvent) -> tuple[str, float, dict[str, float] | None]:
        """For /v1/completions: the token, its logprob, and the alternatives by their texts.

        Of two alternatives with one text (parts of characters) the likelier is told.
        """
        top: dict[str, float] = {}
        for token_id, logprob in event.top_logprobs:
            top.setdefault(self.text_of(token_id), logprob)
        return self.text_of(event.id), event.logprob, top or None

    def _told(self, token_id: int, logprob: float) -> dict[str, Any]:
        piece = self.bytes_of(token_id)
        return {"token": piece.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(piece)}


def text_logprobs(entries: list[tuple[str, float, dict[str, float] | None]], offset: int) -> dict[str, Any]:
    """choices[].logprobs of /v1/completions. offset: characters of the answer before the first of them."""
    offsets = []
    for token, _, _ in entries:
        offsets.append(offset)
        offset += len(token)
    return {
        "tokens": [token for token, _, _ in entries],
        "token_logprobs": [logprob for _, logprob, _ in entries],
        "top_logprobs": [top or {} for _, _, top in entries],
        "text_offset": offsets,
    }
