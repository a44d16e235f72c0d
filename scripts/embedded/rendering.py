"""Documents -> token ids, as mistral-common's templates have them, and which of them the model is to learn.

Chats are put together here by hand, since templates through pydantic would take longer than the training step that
waits for them; a test holds this to the ids of swarm.tokenizer. Knows no tensors.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from embedded.corpus import Chat, Document, Infill, Text, ToolChat, Turn
from embedded.vocabulary import CONTROL_TOKENS
from swarm.tokenizer import Tokenizer, load_tokenizer

_ID = {token: token_id for token_id, token in enumerate(CONTROL_TOKENS)}
BOS, EOS = _ID["<s>"], _ID["</s>"]
_FIM_ANCHOR = "\N{WHITE SMILING FACE}"
CALL_ID = "000000000"
"""Nine characters, as the API wants; version 13's template does not show it to the model."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """learned[i]: whether ids[i] is to be predicted (answers and raw text), rather than given (questions)."""

    ids: list[int]
    learned: list[bool]


class Renderer:
    """Renders with one tokenizer; immutable."""

    def __init__(self, tokenizer_path: Path) -> None:
        self.tokenizer: Tokenizer = load_tokenizer(tokenizer_path)

    def render(self, document: Document) -> Rendered:
        """The document as the model reads it in training, from <s> to the last </s>."""
        parts = _Parts()
        parts.given([BOS])
        match document:
            case Chat():
                if document.system:
                    parts.given([_ID["[SYSTEM_PROMPT]"], *self._encode(document.system), _ID["[/SYSTEM_PROMPT]"]])
                for turn in document.turns:
                    self._turn(parts, turn)
            case Text():
                parts.learned([*self._encode(document.text), EOS])
            case Infill():
                suffix = self._encode(_FIM_ANCHOR + document.suffix)[2:]
                parts.given([_ID["[SUFFIX]"], *suffix, _ID["[PREFIX]"], *self._encode(document.prefix)])
                parts.learned([*self._encode(document.middle), EOS])
            case ToolChat():
                return self._tool_chat(document)
        return parts.rendered()

    def _turn(self, parts: _Parts, turn: Turn) -> None:
        parts.given([_ID["[INST]"], *self._encode(turn.question), _ID["[/INST]"]])
        parts.learned([*self._encode(turn.answer), EOS])

    def _tool_chat(self, document: ToolChat) -> Rendered:
        """The call and the last answer are learned; what the tool says is given."""
        messages, tools = tool_messages(document), list(document.tools)
        before_call = self.tokenizer.encode_chat(messages[:1], tools)
        before_answer = self.tokenizer.encode_chat(messages, tools)
        after_call = before_answer.index(_ID["[TOOL_RESULTS]"])
        parts = _Parts()
        parts.given(before_call)
        parts.learned(before_answer[len(before_call) : after_call])
        parts.given(before_answer[after_call:])
        parts.learned([*self._encode(document.answer), EOS])
        return parts.rendered()

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, bos=False)


def tool_messages(document: ToolChat) -> list[dict]:
    """The conversation up to where the model answers from the tool's result, as the chat completions API has it."""
    call = {"name": document.call_name, "arguments": document.call_arguments}
    return [
        {"role": "user", "content": document.question},
        {"role": "assistant", "content": "", "tool_calls": [{"id": CALL_ID, "type": "function", "function": call}]},
        {"role": "tool", "tool_call_id": CALL_ID, "name": document.call_name, "content": document.result},
    ]


class _Parts:
    def __init__(self) -> None:
        self._ids: list[int] = []
        self._learned: list[bool] = []

    def given(self, ids: list[int]) -> None:
        self._ids += ids
        self._learned += [False] * len(ids)

    def learned(self, ids: list[int]) -> None:
        self._ids += ids
        self._learned += [True] * len(ids)

    def rendered(self) -> Rendered:
        return Rendered(self._ids, self._learned)


def texts_of(document: Document) -> list[str]:
    """Every text in it, for the vocabulary to be trained on."""
    match document:
        case Chat():
            return [document.system, *(text for turn in document.turns for text in (turn.question, turn.answer))]
        case Text():
            return [document.text]
        case Infill():
            return [document.prefix, document.middle, document.suffix]
        case ToolChat():
            calls = [document.call_name, json.dumps(document.call_arguments, ensure_ascii=False), document.result]
            return [json.dumps(document.tools, ensure_ascii=False), document.question, *calls, document.answer]
