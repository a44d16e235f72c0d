from __future__ import annotations

import dataclasses

import pytest
import torch

from node.model import KVCache
from node.model.cache import PAGE, REWIND_MARGIN
from node.weights import PRESETS
from swarm.errors import ContextLengthExceeded, PositionMismatch, SessionLost
from swarm.terms import Span

WINDOW = 100


def _cache(*windows: int | None, max_positions: int | None = None) -> KVCache:
    args = dataclasses.replace(PRESETS["tiny-mistral"].args, n_layers=len(windows), windows=windows)
    return KVCache(args, Span(0, len(windows)), dtype=torch.float32, device="cpu", max_positions=max_positions)


def _write(cache: KVCache, position: int, n_rows: int) -> None:
    """Rows whose every value is their position."""
    cache.truncate(position)
    cache.require_room(n_rows)
    rows = torch.arange(position, position + n_rows, dtype=torch.float32)[:, None, None].expand(-1, 2, 16)
    for layer_idx in cache.span:
        cache.layer(layer_idx).write(position, rows, -rows)
    cache.advance(n_rows)


def _positions(cache: KVCache, layer_idx: int) -> list[int]:
    """The positions that a layer still holds, read back from its keys."""
    layer = cache.layer(layer_idx)
    assert torch.equal(layer.keys, -layer.values)
    held = layer.keys[0, : cache.length - layer.start, 0].tolist()
    assert held == list(range(layer.start, cache.length))
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
    assert cache.layer(0).capacity <= WINDOW + REWIND_MARGIN + 3 * PAGE
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
