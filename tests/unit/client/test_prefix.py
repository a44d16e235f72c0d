"""What a generation tells of its pages: never a page whose bits could differ from those of its own computation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.client import Journal
from swarm.client.prefix import PageNames
from swarm.client.session import CHUNK_TOKENS
from swarm.pages import PAGE, page_hashes
from swarm.sampling import SamplingParams
from swarm.terms import Infohash, Profile

BF16, FP32 = Profile("bf16"), Profile("fp32")
SECRET = b"of this client"


def journal_of(n_prompt: int, n_emitted: int = 0) -> Journal:
    prompt = [7 * i % 1000 for i in range(n_prompt)]
    journal = Journal.create(Infohash("ab" * 20), prompt, SamplingParams(), None, continues=True)
    for i in range(n_emitted):
        journal.emit(2000 + i, -0.5)
    return journal


@pytest.mark.parametrize("profile", [BF16, FP32])
@pytest.mark.parametrize(("n_prompt", "n_pages"), [(1, 0), (256, 0), (257, 1), (512, 1), (513, 2), (1000, 3)])
def test_a_new_generation_asks_for_its_prompt_s_pages_and_keeps_an_id_to_feed(
    profile: Profile, n_prompt: int, n_pages: int
) -> None:
    journal = journal_of(n_prompt)
    offered = PageNames(journal, SECRET).offered(profile)
    assert offered == page_hashes(journal.ids, SECRET)[:n_pages]
    assert n_pages * PAGE < n_prompt


def test_what_was_emitted_in_bf16_comes_from_the_same_steps_again() -> None:
    journal = journal_of(600, n_emitted=200)
    assert PageNames(journal, SECRET).offered(BF16) == ()
    assert PageNames(journal, SECRET).offered(FP32) == page_hashes(journal.ids, SECRET)[:3]


def test_in_bf16_a_page_is_named_only_if_it_was_one_chunk_of_a_prompt() -> None:
    journal = journal_of(600, n_emitted=200)
    names, hashes = PageNames(journal, SECRET), page_hashes(journal.ids, SECRET)
    assert CHUNK_TOKENS == PAGE, "a prompt's chunks are its pages; else bf16 shares nothing"
    assert names.completed(0, CHUNK_TOKENS, BF16) == hashes[:1]
    assert names.completed(256, CHUNK_TOKENS, BF16) == hashes[1:2]
    assert names.completed(512, 88, BF16) == ()
    assert names.completed(767, 1, BF16) == ()
    assert names.completed(700, 68, BF16) == ()
    assert names.completed(0, 512, BF16) == ()
    assert names.completed(767, 1, FP32) == hashes[2:3]
    assert names.completed(0, 512, FP32) == hashes[:2]


@given(lengths=st.lists(st.integers(min_value=1, max_value=700), min_size=1, max_size=6))
def test_in_fp32_the_steps_name_every_page_once_while_ids_come_in(lengths: list[int]) -> None:
    journal = journal_of(lengths[0])
    names, told, at = PageNames(journal, SECRET), list[bytes](), 0
    for n, length in enumerate(lengths):
        if n:
            for i in range(length):
                journal.emit(i, 0.0)
        told += names.completed(at, length, FP32)
        at += length
    assert tuple(told) == page_hashes(journal.ids, SECRET)


def test_generations_of_other_secrets_share_no_name() -> None:
    mine, theirs = PageNames(journal_of(600), SECRET), PageNames(journal_of(600), b"of another")
    assert mine.offered(FP32) == PageNames(journal_of(600), SECRET).offered(FP32)
    assert not set(mine.offered(FP32)) & set(theirs.offered(FP32))
