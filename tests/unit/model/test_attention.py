from __future__ import annotations

from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from node.model import attention
from node.model.attention import Chunk, attend_rows, attend_tiles
from node.model.cache import LayerCache

HEAD_DIM = 8


def _cached(n_kv_heads: int, n_positions: int, window: int | None, *, poison: int = 0) -> LayerCache:
    """n_positions random keys and values, written in one go; the first `poison` of them are NaN."""
    empty = torch.empty(n_kv_heads, 0, HEAD_DIM)
    kv = LayerCache(empty, empty, window)
    xk, xv = torch.randn(2, n_positions, n_kv_heads, HEAD_DIM)
    kv.write(0, xk, xv)
    kv.keys[:, :poison] = torch.nan
    kv.values[:, :poison] = torch.nan
    return kv


def _chunk(position: int, n_rows: int) -> Chunk:
    return Chunk(position, n_rows, torch.ones(n_rows, 1, HEAD_DIM // 2, dtype=torch.complex64), HEAD_DIM, torch.float32)


def _reference(xq: Tensor, position: int, kv: LayerCache) -> Tensor:
    """One query head and one row at a time, in float64, straight from the definition."""
    n_rows, n_heads, _ = xq.shape
    group = n_heads // kv.keys.shape[0]
    out = torch.zeros(n_rows, n_heads, HEAD_DIM, dtype=torch.float64)
    for row in range(n_rows):
        query = position + row
        seen = [key for key in range(query + 1) if kv.window is None or query - key < kv.window]
        for head in range(n_heads):
            keys = kv.keys[head // group, seen].double()
            weights = torch.softmax(keys @ xq[row, head].double(), dim=0)
            out[row, head] = weights @ kv.values[head // group, seen].double()
    return out.flatten(1)


@settings(max_examples=60, deadline=None)
@given(
    position=st.integers(0, 40),
    n_rows=st.integers(1, 24),
    window=st.none() | st.integers(1, 50),
    n_kv_heads=st.sampled_from([1, 2]),
    group=st.sampled_from([1, 3]),
    max_scores=st.sampled_from([1, 200, 1 << 20]),
)
def test_both_ways_compute_the_definition(
    position: int, n_rows: int, window: int | None, n_kv_heads: int, group: int, max_scores: int
) -> None:
    torch.manual_seed(position * 31 + n_rows)
    kv = _cached(n_kv_heads, position + n_rows, window)
    xq = torch.randn(n_rows, n_kv_heads * group, HEAD_DIM)
    expected = _reference(xq, position, kv)
    rows = attend_rows(xq, _chunk(position, n_rows), kv)
    with mock.patch.object(attention, "MAX_TILE_SCORES", max_scores), mock.patch.object(attention, "TILE_ROWS", 7):
        tiles = attend_tiles(xq, _chunk(position, n_rows), kv)
    torch.testing.assert_close(rows.double(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(tiles.double(), expected, atol=1e-5, rtol=1e-5)


def test_tiles_do_not_touch_keys_that_no_row_sees() -> None:
    kv = _cached(2, 300, window=20, poison=81)
    xq = torch.randn(200, 4, HEAD_DIM)
    assert not attend_tiles(xq, _chunk(100, 200), kv).isnan().any()
    kv.keys[:, 81] = torch.nan  # the one that row 0 sees last
    assert attend_tiles(xq, _chunk(100, 200), kv).isnan().any()


class _LargestTensor(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.n_values = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.n_values = max(self.n_values, result.untyped_storage().nbytes() // 4)
        return result


def test_a_long_prompts_scores_stay_within_the_bound() -> None:
    n_rows, n_heads = 2048, 4
    kv = _cached(1, n_rows, window=None)
    xq = torch.randn(n_rows, n_heads, HEAD_DIM)
    bound = 1 << 17
    with mock.patch.object(attention, "MAX_TILE_SCORES", bound), _LargestTensor() as largest:
        attend_tiles(xq, _chunk(0, n_rows), kv)
    assert largest.n_values <= bound
    assert n_heads * n_rows * n_rows > 100 * bound


@pytest.mark.parametrize("n_rows", [1, 5])
def test_decode_masks_stale_rows_and_the_pages_tail(n_rows: int) -> None:
    kv = _cached(2, 60, window=None)
    xq = torch.randn(n_rows, 4, HEAD_DIM)
    before = attend_rows(xq, _chunk(20, n_rows), kv)
    kv.keys[:, 20 + n_rows :] = 1e3
    kv.values[:, 20 + n_rows :] = 1e3
    assert torch.equal(attend_rows(xq, _chunk(20, n_rows), kv), before)
