"""The corpus keeps its word: the same for a seed, true where it can be checked, and silent about what is held out."""

import json
import random
import re
from dataclasses import asdict
from hashlib import blake2b
from itertools import islice

import pytest
from embedded.corpus import (
    KINDS,
    Chat,
    Document,
    Infill,
    Text,
    ToolChat,
    Turn,
    held_out_documents,
    is_held_out,
    training_documents,
)

GOLDEN = "0c986fd1aff981bbe76825531829e7b0"
N_HELD_OUT = 120
LONGEST_CHARS = 740  # 240 tokens, tools' schemas included


def texts_of(document: Document) -> list[str]:
    match document:
        case Chat():
            return [document.system, *(text for turn in document.turns for text in (turn.question, turn.answer))]
        case Text():
            return [document.text]
        case Infill():
            return [document.prefix, document.middle, document.suffix]
        case ToolChat():
            call = json.dumps(document.call_arguments)
            return [json.dumps(document.tools), document.question, call, document.result, document.answer]


def drawn(kind: str, n: int) -> list[Document]:
    rng = random.Random(7)
    return [KINDS[kind].make(rng) for _ in range(n)]


def turns_of(kind: str, n: int) -> list[Turn]:
    return [turn for chat in drawn(kind, n) if isinstance(chat, Chat) for turn in chat.turns]


def sums_in(text: str) -> tuple[int, int, int]:
    """The numbers of `17 + 25 = 42.`, the second with its sign."""
    found = re.fullmatch(r"(\d+) ([+-]) (\d+) = (\d+)\.", text)
    assert found, text
    sign = 1 if found[2] == "+" else -1
    return int(found[1]), sign * int(found[3]), int(found[4])


def test_a_seed_names_the_same_documents_everywhere() -> None:
    digest = blake2b(digest_size=16)
    for document in islice(training_documents(0), 2_000):
        digest.update(json.dumps([type(document).__name__, asdict(document)], ensure_ascii=False).encode())
    assert digest.hexdigest() == GOLDEN, "the corpus has changed: a release trained before cannot be made again from it"


def test_training_never_sees_a_held_out_key() -> None:
    seen: set[tuple[str, str]] = set()
    for document in islice(training_documents(1), 50_000):
        assert not is_held_out(document.kind, document.key), document
        if document.kind != "mixed":
            seen.add((document.kind, document.key))
            continue
        parts = [part.split("|", 1) for part in document.key.split("\n")]
        assert 2 <= len(parts) <= 4, document
        for kind, key in parts:
            assert not is_held_out(kind, key), document
            seen.add((kind, key))
    for kind in KINDS:
        assert not any((kind, document.key) in seen for document in held_out_documents(kind, 3, N_HELD_OUT))


def test_a_held_out_sum_is_not_trained_in_another_language() -> None:
    for document in islice(training_documents(2), 30_000):
        if isinstance(document, Chat) and document.kind in ("abroad", "mixed"):
            for turn in document.turns:
                found = re.fullmatch(r"(\d+) \+ (\d+) = \d+\.", turn.answer)
                if found:
                    low, high = sorted(map(int, found.groups()))
                    assert not is_held_out("sums", f"+|{low}|{high}"), turn


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_distinct_held_out_documents_of_one_question(kind: str) -> None:
    documents = held_out_documents(kind, 0, N_HELD_OUT)
    assert len({document.key for document in documents}) == N_HELD_OUT
    assert all(document.kind == kind and is_held_out(kind, document.key) for document in documents)
    assert held_out_documents(kind, 0, N_HELD_OUT) == documents
    if kind != "memory":
        assert all(len(document.turns) == 1 for document in documents if isinstance(document, Chat))


def test_held_out_documents_of_no_kind_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"no kind is called 'poems'.*sums"):
        held_out_documents("poems", 0, 1)
    with pytest.raises(ValueError, match="fewer than 100000"):
        held_out_documents("talk", 0, 100_000)


def test_one_key_in_ten_is_held_out_and_everyday_openings_never() -> None:
    share = sum(is_held_out("sums", f"+|{a}|{b}") for a in range(100) for b in range(a, 100)) / 5_050
    assert 0.08 < share < 0.12
    assert not any(is_held_out("talk", f"common|{n}") for n in range(1_000))


def test_no_document_is_too_long_and_no_text_is_untidy() -> None:
    for document in islice(training_documents(3), 20_000):
        texts = texts_of(document)
        assert sum(map(len, texts)) <= LONGEST_CHARS, document
        if isinstance(document, Chat | ToolChat):
            assert all(text == text.strip() and "  " not in text.replace("    ", "") for text in texts), document
            assert not any(re.search(r"[{}]", text) for text in texts[1:2]), document


def test_a_third_of_the_chats_are_mixtures() -> None:
    chats = [d for d in islice(training_documents(4), 20_000) if isinstance(d, Chat)]
    share = sum(chat.kind == "mixed" for chat in chats) / len(chats)
    assert 0.28 < share < 0.38


def test_sums_are_right() -> None:
    for turn in turns_of("sums", 5_000):
        first, second, total = sums_in(turn.answer)
        assert first + second == total and total >= 0
        asked = sorted(map(int, re.findall(r"\d+", turn.question)))
        assert asked == sorted((first, abs(second))), turn


def test_sums_abroad_are_right() -> None:
    answers = [turn.answer for turn in turns_of("abroad", 5_000) if "=" in turn.answer]
    assert len(answers) > 1_000
    for first, second, total in map(sums_in, answers):
        assert first + second == total


def test_sortings_are_right() -> None:
    tasks: set[str] = set()
    for chat in drawn("sorting", 5_000):
        assert isinstance(chat, Chat)
        task = chat.key.split("|")[0]
        tasks.add(task)
        question, answer = chat.turns[0].question, chat.turns[0].answer
        if task == "words":
            words = answer.rstrip(".").split(", ")
            assert words == sorted(words) and len({word[0] for word in words}) == len(words)
            assert all(re.search(rf"\b{word}\b", question) for word in words)
            continue
        asked = list(map(int, re.findall(r"\d+", question)))
        given = list(map(int, re.findall(r"\d+", answer)))
        expected = {"numbers": sorted(asked), "largest": [max(asked)], "smallest": [min(asked)]}[task]
        assert given == expected, chat
    assert tasks == {"words", "numbers", "largest", "smallest"}


def test_reading_answers_come_from_the_text() -> None:
    for turn in turns_of("reading", 5_000):
        if "How many" in turn.question:
            first, change, total = map(int, re.findall(r"\d+", turn.question + turn.answer))
            assert total == (first + change if "finds" in turn.question else first - change), turn
            continue
        unknown = set(re.findall(r"\w+", turn.answer)) - set(re.findall(r"\w+", turn.question)) - {"The", "is"}
        assert unknown <= {"tallest", "oldest", "fastest", "strongest", "youngest", "gave", "away", "has", "in"}, turn


def test_memory_repeats_what_was_told_or_says_that_nothing_was() -> None:
    told = untold = 0
    for chat in drawn("memory", 3_000):
        assert isinstance(chat, Chat)
        answer = chat.turns[-1].answer
        if answer == "You have not told me yet.":
            untold += 1
            continue
        value = answer.removesuffix(".").split()[-1]
        assert any(value in turn.question for turn in chat.turns[:-1]), chat
        told += 1
    assert told > 4 * untold > 0


def test_tool_calls_fit_their_schemas_and_answers_their_results() -> None:
    for chat in drawn("tools", 2_000):
        assert isinstance(chat, ToolChat)
        schema = {tool["function"]["name"]: tool["function"]["parameters"] for tool in chat.tools}[chat.call_name]
        types = {"string": str, "integer": int}
        assert list(chat.call_arguments) == schema["required"]
        assert all(type(v) is types[schema["properties"][k]["type"]] for k, v in chat.call_arguments.items())
        assert all(str(value) in chat.answer for value in json.loads(chat.result).values()), chat
        if chat.call_name == "add":
            assert json.loads(chat.result)["sum"] == sum(chat.call_arguments.values())


def test_stories_stay_with_their_hero() -> None:
    he, she = {"he", "his", "him", "himself"}, {"she", "her", "hers", "herself"}
    for document in drawn("stories", 2_000):
        text = document.text if isinstance(document, Text) else texts_of(document)[-1]
        animal, name = document.key.split("|")[:2]
        words = re.findall(r"\w+", text.lower())
        assert animal in words and text.count(name) >= 2
        assert 60 <= len(words) <= 110, len(words)
        assert not (he & set(words) and she & set(words)), text
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", text), text


def test_a_question_has_one_answer() -> None:
    answers: dict[str, str] = {}
    one_turn = ("world", "knowledge", "swarm", "translation", "code", "unknown", "talk")
    for kind in one_turn:
        for chat in drawn(kind, 20_000):
            assert isinstance(chat, Chat)
            turn = chat.turns[0]
            question = turn.question.lower().rstrip(".?! ")
            assert answers.setdefault(question, turn.answer) == turn.answer, question
