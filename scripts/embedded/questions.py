"""Held-out documents -> questions with one right answer each, and whether an answer is that one.

Knows no engine: a question is prompt ids, and an answer is generated ids.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from embedded.corpus import KINDS, Chat, Document, Infill, ToolChat, code_checks, held_out_documents
from embedded.rendering import EOS, Renderer, tool_messages

SEED = 20_000
"""Of the held-out questions; which documents are held out does not depend on it."""

UNANSWERABLE = ("stories",)
"""Kinds without one right answer: they count in the perplexity only."""

RUN_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Question:
    """expected: the ids of the one right answer, </s> included.

    program: for code, what to run with the answer's text in place of {answer}; it fails if the code is wrong.
    """

    kind: str
    text: str
    prompt: tuple[int, ...]
    expected: tuple[int, ...]
    program: tuple[str, str] | None = None


def held_out_questions(renderer: Renderer, n_per_kind: int) -> list[Question]:
    """The same questions each time; a tool chat makes two (the call, and the answer from its result)."""
    return [
        question
        for kind in KINDS
        if kind not in UNANSWERABLE
        for document in held_out_documents(kind, SEED, n_per_kind)
        for question in questions_of(renderer, document)
    ]


def questions_of(renderer: Renderer, document: Document) -> Iterator[Question]:
    """Prompts as mistral-common's templates make them, not as the training's own rendering does."""
    tokenizer = renderer.tokenizer
    match document:
        case Chat():
            messages = [{"role": "system", "content": document.system}] if document.system else []
            for turn in document.turns:
                messages += [
                    {"role": "user", "content": turn.question},
                    {"role": "assistant", "content": turn.answer},
                ]
            answer = document.turns[-1].answer
            program = ("", "\n" + code_checks(document)) if document.kind == "code" else None
            yield Question(
                document.kind,
                document.turns[-1].question,
                tuple(tokenizer.encode_chat(messages[:-1])),
                (*tokenizer.encode(answer, bos=False), EOS),
                program,
            )
        case Infill():
            yield Question(
                document.kind,
                f"{document.prefix}<…>{document.suffix}",
                tuple(tokenizer.encode_fim(document.prefix, document.suffix)),
                (*tokenizer.encode(document.middle, bos=False), EOS),
                (document.prefix, f"{document.suffix}\n{document.checks}"),
            )
        case ToolChat():
            tools, messages = list(document.tools), tool_messages(document)
            call = tokenizer.encode_chat(messages[:1], tools)
            with_result = tokenizer.encode_chat(messages, tools)
            end_of_call = with_result.index(EOS, len(call)) + 1
            yield Question(
                document.kind,
                f"{document.question} ({json.dumps(document.call_arguments, ensure_ascii=False)})",
                tuple(call),
                tuple(with_result[len(call) : end_of_call]),
            )
            yield Question(
                document.kind,
                f"{document.question} {document.result}",
                tuple(with_result),
                (*tokenizer.encode(document.answer, bos=False), EOS),
            )


def is_exact(question: Question, answer: Sequence[int], renderer: Renderer) -> bool:
    """The right text (however it is cut into ids), and an end where the right answer ends."""
    if EOS not in answer:
        return False
    return tuple(answer) == question.expected or (
        _specials(answer) == _specials(question.expected)
        and renderer.tokenizer.decode(answer) == renderer.tokenizer.decode(question.expected)
    )


def runs(question: Question, answer: Sequence[int], renderer: Renderer) -> bool:
    """Whether the code with this answer in it passes its checks, in a Python of its own."""
    assert question.program is not None
    before, after = question.program
    source = before + renderer.tokenizer.decode(answer, continues=True) + after
    try:
        ran = subprocess.run([sys.executable, "-I", "-c", source], capture_output=True, timeout=RUN_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return False
    return ran.returncode == 0


def _specials(ids: Sequence[int]) -> list[int]:
    from embedded.vocabulary import N_SPECIAL_TOKENS

    return [token_id for token_id in ids if token_id < N_SPECIAL_TOKENS]
