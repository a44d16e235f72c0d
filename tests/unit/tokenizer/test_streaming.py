"""Streaming shows whole characters only, and in the end exactly what decoding everything at once gives."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.errors import BadArgument

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
TEXTS = [
    "The quick brown fox.",
    "  two leading spaces, tabs\tand\r\nlines\n\n",
    "Übergröße, naïve café, œuvre",
    "Быстрая лиса прыгает",
    "نص عربي من اليمين إلى اليسار",
    "नमस्ते दुनिया",
    "素早い茶色の狐、한국어도 있습니다",
    "👩‍👩‍👧‍👦 family, 🏳️‍🌈 flag, 🧑🏽‍🚀 astronaut, 😀",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 beyond the BMP 𓀀 𐎀 🂡",
    "▁ is SentencePiece's own mark, ⁇ its unknown",
    "a\x00b\x7f\ufeffc\u200d",
    REPLACEMENT + " stands in the text itself " + REPLACEMENT,
    "</s>[INST] not special [/INST]",
]


def stream_all(case: Any, ids: list[int], continues: bool = False) -> tuple[list[str], str]:
    decoder = case.ours.stream(continues=continues)
    return [decoder.push(token_id) for token_id in ids], decoder.flush()


def check(case: Any, ids: list[int]) -> None:
    pushes, rest = stream_all(case, ids)
    expected = case.reference_decode(ids)
    assert "".join(pushes) + rest == expected
    assert case.ours.decode(ids) == expected


@pytest.mark.parametrize("text", TEXTS)
def test_text_comes_back_whole_and_as_early_as_it_can(case: Any, text: str) -> None:
    ids = case.ours.encode(text)
    pushes, rest = stream_all(case, ids)
    assert "".join(pushes) + rest == case.reference_decode(ids)
    is_altered = "tekken" not in case.name and "\u2581" in text  # SentencePiece reads its own mark as a space
    assert ("".join(pushes) + rest == text) is not is_altered
    assert rest == ""
    for n_seen, shown in enumerate(itertools.accumulate(pushes), start=1):
        if REPLACEMENT not in text:
            assert shown == case.reference_decode(ids[:n_seen]).rstrip(REPLACEMENT)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_ids(distinct_case: Any, data: st.DataObject) -> None:
    """Random ids, thick with byte-fallback and special ones."""
    anything = st.integers(0, distinct_case.ours.vocab_size - 1)
    special = st.integers(0, 30)
    check(
        distinct_case,
        data.draw(st.lists(st.one_of(anything, st.sampled_from(distinct_case.byte_ids), special), max_size=12)),
    )


@given(text=st.text(max_size=30))
@settings(max_examples=60, deadline=None)
def test_any_text_spelled_in_bytes(distinct_case: Any, text: str) -> None:
    ids = [distinct_case.byte_ids[byte] for byte in text.encode()]
    pushes, rest = stream_all(distinct_case, ids)
    assert "".join(pushes) == text
    assert rest == ""
    assert sum(push.count(REPLACEMENT) for push in pushes) == text.count(REPLACEMENT)
    assert [len(push) for push in pushes if push] == [1] * len(text), "each character comes whole, and at once"


@given(data=st.binary(max_size=8), cut=st.integers(0, 8))
@settings(max_examples=60, deadline=None)
def test_any_bytes_even_with_a_special_id_amid_them(distinct_case: Any, data: bytes, cut: int) -> None:
    ids = [distinct_case.byte_ids[byte] for byte in data]
    check(distinct_case, ids)
    check(distinct_case, [*ids[:cut], distinct_case.ours.bos_id, *ids[cut:]])


EDGES = (
    0x00,
    0x41,
    0x7F,
    0x80,
    0x8F,
    0x90,
    0x9F,
    0xA0,
    0xBF,
    0xC0,
    0xC2,
    0xDF,
    0xE0,
    0xED,
    0xEF,
    0xF0,
    0xF4,
    0xF5,
    0xFF,
)


def test_bytes_at_every_edge_of_utf8(distinct_case: Any) -> None:
    """Overlong forms, surrogates, beyond U+10FFFF, cut-off and stray bytes."""
    ids = distinct_case.byte_ids
    word = distinct_case.ours.encode(" x", bos=False)
    for n_bytes in (1, 2):
        for combination in itertools.product(EDGES, repeat=n_bytes):
            check(distinct_case, [ids[byte] for byte in combination] + word)
    for tail in itertools.product((0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF), (0x80, 0xBF, 0x41), (0xBF, 0xC2)):
        for lead in (0xE0, 0xED, 0xEF, 0xF0, 0xF4):
            check(distinct_case, [ids[byte] for byte in (lead, *tail)])


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_continuation_is_what_follows_in_the_whole_text(distinct_case: Any, data: st.DataObject) -> None:
    before = distinct_case.ours.encode("Once", bos=False)
    after = data.draw(
        st.lists(
            st.one_of(st.integers(0, distinct_case.ours.vocab_size - 1), st.sampled_from(distinct_case.byte_ids)),
            max_size=8,
        )
    )
    pushes, rest = stream_all(distinct_case, after, continues=True)
    assert "".join(pushes) + rest == distinct_case.reference_decode(before + after).removeprefix("Once")
    assert distinct_case.ours.decode(after, continues=True) == "".join(pushes) + rest


def test_a_continuation_keeps_its_first_space(case: Any) -> None:
    prompt, whole = case.ours.encode("Paris is"), case.ours.encode("Paris is the capital")
    assert whole[: len(prompt)] == prompt
    assert case.ours.decode(whole[len(prompt) :], continues=True) == " the capital"


def test_special_ids_have_no_text(case: Any) -> None:
    specials = [token_id for token_id in range(case.ours.vocab_size) if case.ours.is_special(token_id)]
    assert {case.ours.bos_id, case.ours.eos_id} <= set(specials)
    pushes, rest = stream_all(case, specials)
    assert set(pushes) <= {""}
    assert rest == ""


def test_an_id_beyond_the_vocabulary_has_no_text(case: Any) -> None:
    """A model may have more ids than its tokenizer file: padding, or tokens that a fine-tune added."""
    hello = case.ours.encode("Hello", bos=False)
    for beyond in (case.ours.vocab_size, 2**40):
        assert case.ours.is_special(beyond)
        assert case.ours.decode([*hello, beyond, *hello]) == case.reference_decode([*hello, case.ours.bos_id, *hello])
        assert case.ours.stream().push(beyond) == ""


def test_a_negative_id_is_refused(case: Any) -> None:
    with pytest.raises(BadArgument, match="-1 is negative"):
        case.ours.stream().push(-1)
    with pytest.raises(BadArgument, match="-1 is negative"):
        case.ours.decode([-1])
