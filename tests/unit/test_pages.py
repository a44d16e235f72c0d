"""A page's hash names the whole prefix that ends with it: equal exactly for equal prefixes, under one secret."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from swarm.pages import MAX_PAGES_OFFERED, PAGE, PAGE_HASH_BYTES, n_pages_completed, page_hashes
from swarm.wire.checks import MAX_STRUCTURE_BYTES

token_ids = st.integers(min_value=0, max_value=2**32 - 1)


@st.composite
def id_lists(draw: st.DrawFn, max_pages: int = 5) -> list[int]:
    """Up to max_pages pages and a rest, of ids that a seed makes: drawing each would be slow."""
    length = draw(st.integers(min_value=0, max_value=max_pages * PAGE + PAGE - 1))
    factor, start = draw(st.integers(min_value=1, max_value=2**31)), draw(token_ids)
    return [(start + factor * i) % 2**32 for i in range(length)]


secrets = st.binary(max_size=64)


@given(ids=id_lists(), secret=secrets)
@example(ids=[0] * (PAGE - 1), secret=b"")
@example(ids=[2**32 - 1] * PAGE, secret=b"")
def test_there_is_one_per_full_page_and_no_two_are_equal(ids: list[int], secret: bytes) -> None:
    hashes = page_hashes(ids, secret)
    assert len(hashes) == len(ids) // PAGE
    assert all(len(page_hash) == PAGE_HASH_BYTES for page_hash in hashes)
    assert len(set(hashes)) == len(hashes)


@given(ids=id_lists(), secret=secrets, data=st.data())
def test_a_prefix_has_the_first_hashes_and_a_known_chain_goes_on_as_the_whole(
    ids: list[int], secret: bytes, data: st.DataObject
) -> None:
    hashes = page_hashes(ids, secret)
    cut = data.draw(st.integers(min_value=0, max_value=len(ids)))
    first = page_hashes(ids[:cut], secret)
    assert first == hashes[: cut // PAGE]
    assert page_hashes(ids, secret, first) == hashes


@given(ids=id_lists().filter(lambda ids: len(ids) >= PAGE), data=st.data())
def test_another_id_changes_the_hash_of_its_page_and_of_all_after_it(ids: list[int], data: st.DataObject) -> None:
    at = data.draw(st.integers(min_value=0, max_value=len(ids) // PAGE * PAGE - 1))
    other = [*ids[:at], (ids[at] + data.draw(st.integers(1, 2**32 - 1))) % 2**32, *ids[at + 1 :]]
    n_same = at // PAGE
    hashes, others = page_hashes(ids), page_hashes(other)
    assert others[:n_same] == hashes[:n_same]
    assert not set(others[n_same:]) & set(hashes)


@given(ids=id_lists().filter(lambda ids: len(ids) >= PAGE), one=secrets, other=secrets)
def test_another_secret_changes_every_hash(ids: list[int], one: bytes, other: bytes) -> None:
    if one != other and one.rstrip(b"\0") != other.rstrip(b"\0"):  # a key is padded with zeros
        assert not set(page_hashes(ids, one)) & set(page_hashes(ids, other))


@given(position=st.integers(min_value=0, max_value=5000), n_rows=st.integers(min_value=1, max_value=2000))
def test_completed_pages_are_those_whose_last_position_is_among_the_rows(position: int, n_rows: int) -> None:
    last = [at for at in range(position, position + n_rows) if at % PAGE == PAGE - 1]
    assert n_pages_completed(position, n_rows) == len(last)


def test_the_most_hashes_fit_into_one_message() -> None:
    assert MAX_PAGES_OFFERED * (PAGE_HASH_BYTES + 2) < MAX_STRUCTURE_BYTES // 2
