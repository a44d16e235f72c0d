from __future__ import annotations

import dataclasses
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from node.model import Chunk, KVCache, attention
from node.model.attention import attend, attend_at_once
from node.model.batch import Batch
from node.model.rope import RopeTable
from node.weights import PRESETS
from swarm.terms import Span

HEAD_DIM = 8
ROPE = RopeTable(HEAD_DIM, 1e4, "cpu")


def _cached(n_kv_heads: int, n_positions: int, window: int | None) -> KVCache:
    """n_positions random keys and values of one layer, not yet counted."""
    args = dataclasses.replace(
        PRESETS["tiny-mistral"].args, n_layers=1, windows=(window,), n_kv_heads=n_kv_heads, head_dim=HEAD_DIM,
        max_positions=10**6,
    )  # fmt: skip
    cache = KVCache(args, Span(0, 1), dtype=torch.float32, device="cpu")
    cache.prepare(n_positions)
    cache.layer(0).write(0, *torch.randn(2, n_kv_heads, n_positions, HEAD_DIM))
    return cache


def _attention(xq: Tensor, cache: KVCache, position: int) -> Tensor:
    cache.advance(position - cache.length)
    chunk = Chunk(cache, xq.shape[0])
    return torch.cat(attend(xq, Batch([chunk], ROPE, HEAD_DIM, xq.dtype), chunk, cache.layer(0)))


def _rows(cache: KVCache) -> tuple[Tensor, Tensor]:
    """The layer's keys and values (KVH, L, hd)."""
    layer = cache.layer(0)
    n_pages = range(len(layer.group.pages))
    return torch.cat([layer.keys(i) for i in n_pages], 1), torch.cat([layer.values(i) for i in n_pages], 1)


def _reference(xq: Tensor, position: int, cache: KVCache, window: int | None) -> Tensor:
    """One query head and one row at a time, in float64, straight from the definition."""
    n_rows, n_heads, _ = xq.shape
    keys, values = _rows(cache)
    group = n_heads // len(keys)
    out = torch.zeros(n_rows, n_heads, HEAD_DIM, dtype=torch.float64)
    for row in range(n_rows):
        query = position + row
        seen = [key for key in range(query + 1) if window is None or query - key < window]
        for head in range(n_heads):
            weights = torch.softmax(keys[head // group, seen].double() @ xq[row, head].double(), dim=0)
            out[row, head] = weights @ values[head // group, seen].double()
    return out.flatten(1)


@settings(max_examples=60, deadline=None)
@given(
    position=st.integers(0, 40) | st.integers(240, 300) | st.integers(500, 530),
    n_rows=st.integers(1, 24),
    window=st.none() | st.integers(1, 50) | st.integers(250, 270),
    n_kv_heads=st.sampled_from([1, 2]),
    group=st.sampled_from([1, 3]),
    max_scores=st.sampled_from([1, 4000, 1 << 20]),
)
def test_it_computes_the_definition(
    position: int, n_rows: int, window: int | None, n_kv_heads: int, group: int, max_scores: int
) -> None:
    torch.manual_seed(position * 31 + n_rows)
    cache = _cached(n_kv_heads, position + n_rows, window)

    xq = torch.randn(n_rows, n_kv_heads * group, HEAD_DIM)
    expected = _reference(xq, position, cache, window)
    cache.advance(position)
    at_once = attend_at_once(xq, position, cache.layer(0))  # as on devices without kernels of our own
    assert torch.allclose(at_once.double(), expected, rtol=1e-4, atol=1e-5)
    with mock.patch.object(attention, "MAX_TILE_SCORES", max_scores), mock.patch.object(attention, "TILE_ROWS", 7):
        got = _attention(xq, cache, position)
    torch.testing.assert_close(got.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("window", [None, 200])
def test_a_rows_bits_do_not_depend_on_its_chunk_nor_on_what_comes_after(window: int | None) -> None:
    torch.manual_seed(0)
    xq = torch.randn(600, 6, 8).bfloat16()
    keys, values = torch.randn(2, 2, 600, 8).bfloat16()

    def computed(chunks: list[int]) -> Tensor:
        args = dataclasses.replace(
            PRESETS["tiny-mistral"].args, n_layers=1, windows=(window,), n_kv_heads=2, head_dim=8
        )
        cache = KVCache(args, Span(0, 1), dtype=torch.bfloat16, device="cpu")
        out = []
        row = 0
        for n_rows in chunks:
            cache.prepare(n_rows)
            cache.layer(0).write(row, keys[:, row : row + n_rows], values[:, row : row + n_rows])
            chunk = Chunk(cache, n_rows)
            batch = Batch([chunk], ROPE, HEAD_DIM, torch.bfloat16)
            out += attend(xq[row : row + n_rows], batch, chunk, cache.layer(0))
            cache.advance(n_rows)
            row += n_rows
        return torch.cat(out)

    whole = computed([512, 88])
    assert torch.equal(computed([1] * 600), whole)
    assert torch.equal(computed([16, 100, 1, 1, 254, 228]), whole)


def test_pages_that_no_row_sees_are_not_touched() -> None:
    cache = _cached(2, 800, window=20)
    xq = torch.randn(60, 4, HEAD_DIM)
    cache.layer(0).keys(0)[:] = torch.nan
    cache.layer(0).keys(3)[:] = torch.nan
    assert not _attention(xq, cache, 600).isnan().any()


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
    cache = _cached(1, n_rows, window=None)
    xq = torch.randn(n_rows, n_heads, HEAD_DIM)
    bound = 1 << 17
    with mock.patch.object(attention, "MAX_TILE_SCORES", bound), _LargestTensor() as largest:
        _attention(xq, cache, 0)
    assert largest.n_values <= bound
    assert n_heads * n_rows * n_rows > 100 * bound


@pytest.mark.parametrize("n_rows", [1, 5])
def test_stale_rows_and_the_pages_tail_are_not_seen(n_rows: int) -> None:
    cache = _cached(2, 60, window=None)
    xq = torch.randn(n_rows, 4, HEAD_DIM)
    before = _attention(xq, cache, 20)
    cache.layer(0).keys(0)[:, 20 + n_rows :] = 1e3
    cache.layer(0).values(0)[:, 20 + n_rows :] = 1e3
    assert torch.equal(_attention(xq, cache, 20), before)
