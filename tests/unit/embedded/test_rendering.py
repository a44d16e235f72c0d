"""What training reads is, id for id, what a client's templates send; and only answers are learned."""

from __future__ import annotations

from itertools import islice

import pytest
from embedded.corpus import Chat, Document, Infill, Text, ToolChat, held_out_documents, training_documents
from embedded.rendering import EOS, Renderer, tool_messages

from swarm.embedded import release_folder


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(release_folder() / "tekken.json")


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    return [*islice(training_documents(7), 1_200), *held_out_documents("tools", 7, 30)]


def test_training_reads_what_clients_send(renderer: Renderer, documents: list[Document]) -> None:
    tokenizer = renderer.tokenizer
    kinds = set()
    for document in documents:
        kinds.add(type(document))
        match document:
            case Chat():
                messages = [{"role": "system", "content": document.system}] if document.system else []
                for turn in document.turns:
                    messages += [{"role": "user", "content": turn.question}]
                    messages += [{"role": "assistant", "content": turn.answer}]
                expected = tokenizer.encode_chat(messages[:-1]) + tokenizer.encode(messages[-1]["content"], bos=False)
            case Infill():
                expected = tokenizer.encode_fim(document.prefix, document.suffix)
                expected = expected + tokenizer.encode(document.middle, bos=False)
            case ToolChat():
                expected = tokenizer.encode_chat(tool_messages(document), list(document.tools))
                expected = expected + tokenizer.encode(document.answer, bos=False)
            case Text():
                expected = tokenizer.encode(document.text)
        assert renderer.render(document).ids == [*expected, EOS]
    assert kinds == {Chat, Infill, ToolChat, Text}


def test_answers_are_learned_and_questions_are_given(renderer: Renderer, documents: list[Document]) -> None:
    for document in documents:
        rendered = renderer.render(document)
        assert len(rendered.learned) == len(rendered.ids)
        learned = [token_id for token_id, is_learned in zip(rendered.ids, rendered.learned, strict=True) if is_learned]
        text = renderer.tokenizer.decode(learned)
        match document:
            case Chat():
                assert text == "".join(turn.answer for turn in document.turns)
                assert learned.count(EOS) == len(document.turns)
            case Infill():
                assert text == document.middle
            case ToolChat():
                assert text.startswith(document.call_name)
                assert text.endswith(document.answer)
                assert document.result not in text
            case Text():
                assert text == document.text
