from __future__ import annotations

import dataclasses

import pytest
import torch

from node.model import PAGE, KVCache, PagePool
from node.model.cache import REWIND_MARGIN
from node.weights import PRESETS
from swarm.errors import ContextLengthExceeded, PositionMismatch, SessionLost, StageFull
from swarm.terms import Span

WINDOW = 100


def _cache(*windows: int | None, max_positions: int | None = None, pool: PagePool | None = None) -> KVCache:
    args = dataclasses.replace(PRESETS["tiny-mistral"].args, n_layers=len(windows), windows=windows)
    return KVCache(
        args, Span(0, len(windows)), dtype=torch.float32, device="cpu", max_positions=max_positions, pool=pool
    )


def _write(cache: KVCache, position: int, n_rows: int) -> None:
    """Rows whose every value is their position."""
    cache.truncate(position)
    cache.require_room(n_rows)
    cache.prepare(n_rows)
    rows = torch.arange(position, position + n_rows, dtype=torch.float32)[:, None].expand(2, -1, 16)
    for layer_idx in cache.span:
        cache.layer(layer_idx).write(position, rows, -rows)
    cache.advance(n_rows)


def _positions(cache: KVCache, layer_idx: int) -> list[int]:
    """The positions that a layer still holds, read back from its keys."""
    layer = cache.layer(layer_idx)
    start = layer.group.start
    n_pages = range(len(layer.group.pages))
    keys = torch.cat([layer.keys(i) for i in n_pages], 1)
    assert torch.equal(keys, -torch.cat([layer.values(i) for i in n_pages], 1))
    held = keys[0, : cache.length - start, 0].tolist()
    assert held == list(range(start, cache.length))
    return [int(position) for position in held]


def test_it_takes_no_memory_before_the_first_row_and_whole_pages_after() -> None:
    cache = _cache(None, None)
    assert (cache.length, cache.size_bytes) == (0, 0)
    _write(cache, 0, 1)
    page_bytes = 2 * 2 * PAGE * 16 * 4  # keys and values, 2 heads, fp32
    assert cache.size_bytes == 2 * page_bytes
    _write(cache, 1, PAGE)
    assert cache.size_bytes == 2 * 2 * page_bytes


def test_rows_keep_their_places_while_it_grows() -> None:
    cache = _cache(None)
    for n_rows in (1, 300, 1, 1, 700, 20):
        _write(cache, cache.length, n_rows)
    assert _positions(cache, 0) == list(range(1023))


def test_a_windowed_layer_drops_what_nobody_can_see() -> None:
    cache = _cache(WINDOW, None)
    for _ in range(2000):
        _write(cache, cache.length, 1)
    held = _positions(cache, 0)
    assert held[0] <= 2000 - WINDOW - REWIND_MARGIN
    assert len(cache.layer(0).group.pages) * PAGE <= WINDOW + REWIND_MARGIN + 2 * PAGE
    assert len(_positions(cache, 1)) == 2000


def test_truncation_works_within_the_margin_wherever_the_pages_fall() -> None:
    for end in range(1000, 1000 + PAGE, 17):
        cache = _cache(WINDOW)
        _write(cache, 0, 5)
        while cache.length < end:
            _write(cache, cache.length, min(50, end - cache.length))
        _write(cache, end - REWIND_MARGIN, 1)
        assert _positions(cache, 0)[0] <= end - REWIND_MARGIN - WINDOW + 1


def test_truncation_beyond_what_a_window_kept_says_so_and_changes_nothing() -> None:
    cache = _cache(WINDOW)
    for _ in range(2000):
        _write(cache, cache.length, 1)
    with pytest.raises(SessionLost, match="replay from position 0"):
        cache.truncate(500)
    assert cache.length == 2000
    cache.truncate(0)
    _write(cache, 0, 10)
    assert _positions(cache, 0) == list(range(10))


def test_without_a_window_any_truncation_works() -> None:
    cache = _cache(None)
    _write(cache, 0, 1000)
    _write(cache, 3, 2)
    assert _positions(cache, 0) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("position", [-1, 11])
def test_a_position_that_is_not_cached_is_refused(position: int) -> None:
    cache = _cache(None)
    _write(cache, 0, 10)
    with pytest.raises(PositionMismatch, match="10 positions are cached"):
        cache.truncate(position)
    assert cache.length == 10


def test_it_never_holds_more_than_was_agreed() -> None:
    cache = _cache(None, max_positions=12)
    _write(cache, 0, 10)
    with pytest.raises(ContextLengthExceeded, match="12"):
        cache.require_room(3)
    cache.require_room(2)
    assert _cache(None, max_positions=10**9).max_positions == PRESETS["tiny-mistral"].args.max_positions


@pytest.mark.parametrize("windows", [(None, None), (WINDOW,), (WINDOW, None)])
def test_a_reservation_is_never_outgrown(windows: tuple[int | None, ...]) -> None:
    pool = PagePool()
    cache = _cache(*windows, pool=pool)
    args = dataclasses.replace(PRESETS["tiny-mistral"].args, n_layers=len(windows), windows=windows)
    for n_rows in (1, 255, 256, 512, 7, 512, 512, 512, 1, 300):
        _write(cache, cache.length, n_rows)
        reserved = KVCache.size_bytes_for(args, cache.span, cache.length, torch.float32)
        assert cache.size_bytes <= reserved
    cache.clear()
    assert (cache.length, cache.size_bytes) == (0, 0)


def test_a_filed_page_is_found_by_others_and_copied_before_it_is_written() -> None:
    pool = PagePool()
    first = _cache(None, None, pool=pool)
    _write(first, 0, PAGE + 10)
    first.file(0, "prefix")
    first.file(1, "not whole yet")
    assert pool.find("not whole yet") is None
    second = _cache(None, None, pool=pool)
    found = pool.find("prefix")
    assert found is not None
    before = pool.size_bytes
    second.adopt([found])
    assert second.length == PAGE and pool.size_bytes == before
    assert _positions(second, 1) == list(range(PAGE))
    second.truncate(100)  # back into the shared page
    second.prepare(1)
    second.layer(0).write(100, torch.full((2, 1, 16), 7.0), torch.full((2, 1, 16), 7.0))
    assert _positions(first, 0) == list(range(PAGE + 10))


def test_what_nobody_holds_stays_until_its_memory_is_wanted_oldest_first() -> None:
    page_bytes = 2 * 2 * PAGE * 16 * 4
    pool = PagePool(3 * page_bytes)
    for name in ("a", "b"):
        cache = _cache(None, pool=pool)
        _write(cache, 0, PAGE)
        cache.file(0, name)
        cache.clear()
    assert pool.n_filed == 2
    third = _cache(None, pool=pool)
    _write(third, 0, 2 * PAGE)
    assert pool.find("a") is None
    assert (pool.n_filed, pool.size_bytes) == (1, 3 * page_bytes)
    b = pool.find("b")
    assert b is not None
    with pytest.raises(StageFull, match="--cache-budget"):
        _write(third, 2 * PAGE, 1)
    assert third.length == 2 * PAGE
    pool.release(b[0])
    _write(third, 2 * PAGE, 1)
    assert pool.n_filed == 0


def test_a_page_that_one_session_spoiled_is_clean_for_the_next() -> None:
    pool = PagePool()
    cache = _cache(None, pool=pool)
    cache.prepare(5)
    cache.layer(0).write(0, torch.full((2, 5, 16), torch.nan), torch.full((2, 5, 16), torch.inf))
    cache.advance(5)
    cache.clear()
    again = _cache(None, pool=pool)
    again.prepare(1)
    assert torch.equal(again.layer(0).keys(0), torch.zeros(2, PAGE, 16))
    assert torch.equal(again.layer(0).values(0), torch.zeros(2, PAGE, 16))


def test_more_found_than_agreed_upon_is_given_back_whatever_the_windows() -> None:
    pool = PagePool()
    first = _cache(WINDOW, None, pool=pool)
    for page in range(4):
        _write(first, page * PAGE, PAGE)
        first.file(page, page)
    second = _cache(WINDOW, None, pool=pool)
    found = [pool.find(page) for page in range(4)]
    second.adopt([pages for pages in found if pages is not None])
    second.truncate(PAGE)
    second.advance(0)
    assert second.length == PAGE
    assert _positions(second, 0) == _positions(second, 1) == list(range(PAGE))


def test_pages_that_only_a_window_gave_up_do_not_escape_the_budget() -> None:
    window_bytes = full_bytes = 2 * 2 * PAGE * 16 * 4
    pool = PagePool(6 * (window_bytes + full_bytes))
    cache = _cache(WINDOW, None, pool=pool)
    for page in range(5):
        _write(cache, page * PAGE, PAGE)
        cache.file(page, page)
    before = pool.size_bytes
    other = _cache(None, pool=pool)
    _write(other, 0, 3 * PAGE)  # only what the window gave up can make room for all of it
    assert pool.size_bytes <= 6 * (window_bytes + full_bytes)
    assert before + 3 * full_bytes > 6 * (window_bytes + full_bytes)
    assert _positions(cache, 1) == list(range(5 * PAGE))
