"""Pieces -> bytes that both SDKs read: whole answers, and the chunks of a stream.

A stream's chunk for plain text is put together from parts that are encoded once for the whole answer: what is done
here is done for every token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from swarm.client import Usage
from swarm.gateway.asked import Asked
from swarm.gateway.dialects import Dialect
from swarm.gateway.generating import Piece
from swarm.gateway.token_texts import TokenTexts, text_logprobs
from swarm.gateway.tool_calls import ToolCall


def event_bytes(value: Mapping[str, Any]) -> bytes:
    """One server-sent event. Source: HTML standard, server-sent events."""
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


def usage_fields(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.prompt_tokens_cached},
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
    }


@dataclass(slots=True)
class _Choice:
    """One answer as it grows. n_chars: of its text. entries: logprobs, in the form of the endpoint."""

    texts: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    entries: list[Any] = field(default_factory=list)
    n_chars: int = 0
    n_calls: int = 0
    has_begun: bool = False
    finish_reason: str = "stop"


class Answer:
    """One request's answers in their dialect: take() each piece, or chunk() it for a stream.

    texts: for logprobs; None where none were asked for.
    """

    def __init__(
        self, asked: Asked, dialect: Dialect, answer_id: str, created_s: int, texts: TokenTexts | None
    ) -> None:
        self._asked = asked
        self._manner = dialect.manner
        self._texts = texts
        self._echoes = [prompt.echo for prompt, _ in asked.choices]
        # Only a chat's first chunk, or one that brings an echo, differs from those that follow.
        self._choices = [_Choice(has_begun=not (asked.is_chat or echo)) for echo in self._echoes]
        self._head: dict[str, Any] = {
            "id": answer_id,
            "object": _object_name(asked),
            "created": created_s,
            "model": asked.model.name,
            "system_fingerprint": asked.model.infohash[:12],
        }
        usage = b',"usage":null' if asked.streams_usage and not self._manner.always_streams_usage else b""
        head = json.dumps(self._head, separators=(",", ":"))[:-1]
        before = '"delta":{"content":' if asked.is_chat else '"text":'
        brace = "}" if asked.is_chat else ""
        self._befores = [f'data: {head},"choices":[{{"index":{i},{before}'.encode() for i in range(len(self._choices))]
        self._after = f'{brace},"logprobs":null,"finish_reason":null}}]'.encode() + usage + b"}\n\n"
        self._null_usage = bool(usage)

    # -- a stream ------------------------------------------------------------------------------------------------------

    def chunk(self, piece: Piece) -> bytes:
        """The chunk of one piece; b"" when there is nothing to tell yet."""
        choice = self._choices[piece.choice_idx]
        if choice.has_begun and self._texts is None and piece.finish_reason is None and not piece.calls:
            if not piece.text:
                return b""
            return self._befores[piece.choice_idx] + json.dumps(piece.text).encode() + self._after
        return self._full_chunk(choice, piece)

    def usage_chunk(self, usage: Usage) -> bytes:
        """The chunk that tells what it all took, in OpenAI's way: without choices."""
        return event_bytes({**self._head, "choices": [], "usage": usage_fields(usage)})

    def finish_chunk(self, piece: Piece, usage: Usage | None) -> bytes:
        """The last chunk of one answer; usage: where the dialect tells it there."""
        return self._full_chunk(self._choices[piece.choice_idx], piece, usage)

    def _full_chunk(self, choice: _Choice, piece: Piece, usage: Usage | None = None) -> bytes:
        entries = self._entries(choice, piece)
        text = piece.text
        if not choice.has_begun:
            text = self._echoes[piece.choice_idx] + text
            if not (text or entries or piece.calls or piece.finish_reason):
                return b""
        fields: dict[str, Any] = {"index": piece.choice_idx}
        if self._asked.is_chat:
            delta: dict[str, Any] = {} if choice.has_begun else {"role": "assistant"}
            if text or self._manner.always_has_content or not (piece.calls or piece.finish_reason):
                delta["content"] = text
            if piece.calls:
                delta["tool_calls"] = [
                    {"index": choice.n_calls + i, **_call_fields(call)} for i, call in enumerate(piece.calls)
                ]
                choice.n_calls += len(piece.calls)
            fields["delta"] = delta
            fields["logprobs"] = {"content": entries} if entries else None
        else:
            fields["text"] = text
            fields["logprobs"] = text_logprobs(entries, choice.n_chars) if entries else None
            choice.n_chars += sum(len(entry[0]) for entry in entries)
        fields["finish_reason"] = None if piece.finish_reason is None else self._reason(piece.finish_reason)
        choice.has_begun = True
        tail: dict[str, Any] = {"usage": None} if self._null_usage else {}
        if usage is not None:
            tail = {"usage": usage_fields(usage)}
        return event_bytes({**self._head, "choices": [fields], **tail})

    # -- a whole answer ------------------------------------------------------------------------------------------------

    def take(self, piece: Piece) -> None:
        choice = self._choices[piece.choice_idx]
        choice.texts.append(piece.text)
        choice.calls += piece.calls
        choice.entries += self._entries(choice, piece)
        choice.finish_reason = piece.finish_reason or choice.finish_reason

    def whole(self, usage: Usage) -> bytes:
        choices = [self._whole_choice(i, choice) for i, choice in enumerate(self._choices)]
        return json.dumps({**self._head, "choices": choices, "usage": usage_fields(usage)}).encode()

    def _whole_choice(self, choice_idx: int, choice: _Choice) -> dict[str, Any]:
        text = self._echoes[choice_idx] + "".join(choice.texts)
        reason = self._reason(choice.finish_reason)
        has_logprobs = self._texts is not None
        if not self._asked.is_chat:
            logprobs = text_logprobs(choice.entries, 0) if has_logprobs else None
            return {"index": choice_idx, "text": text, "logprobs": logprobs, "finish_reason": reason}
        message: dict[str, Any] = {"role": "assistant", "content": text if text or not choice.calls else None}
        if choice.calls:
            message["tool_calls"] = [_call_fields(call) for call in choice.calls]
        logprobs = {"content": choice.entries} if has_logprobs else None
        return {"index": choice_idx, "message": message, "logprobs": logprobs, "finish_reason": reason}

    def _entries(self, choice: _Choice, piece: Piece) -> list[Any]:
        if self._texts is None or piece.event is None or not piece.is_told:
            return []
        return [self._texts.chat_entry(piece.event) if self._asked.is_chat else self._texts.text_entry(piece.event)]

    def _reason(self, reason: str) -> str:
        return self._manner.full_context if reason == "full_context" else reason


def _call_fields(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _object_name(asked: Asked) -> str:
    if not asked.is_chat:
        return "text_completion"
    return "chat.completion.chunk" if asked.is_streamed else "chat.completion"
