"""Our own attention: the definition, and bits that depend on what a row sees and on nothing else."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from node.model import PAGE, Chunk, KVCache
from node.model.attention import attend
from node.model.batch import Batch
from node.model.ops import native
from node.model.rope import RopeTable
from node.weights import PRESETS
from swarm.terms import Span

pytestmark = pytest.mark.skipif(native.why_absent() is not None, reason=str(native.why_absent()))


def cached(n_kv_heads: int, n_positions: int, window: int | None, head_dim: int) -> KVCache:
    """n_positions random keys and values of one layer, not yet counted."""
    args = dataclasses.replace(
        PRESETS["tiny-mistral"].args,
        n_layers=1,
        windows=(window,),
        n_heads=n_kv_heads,
        n_kv_heads=n_kv_heads,
        head_dim=head_dim,
    )
    cache = KVCache(args, Span(0, 1), dtype=torch.bfloat16, device="cpu")
    cache.prepare(n_positions)
    generator = torch.Generator().manual_seed(n_positions)
    rows = torch.randn(2, n_kv_heads, n_positions, head_dim, generator=generator)
    cache.layer(0).write(0, *rows.bfloat16())
    return cache


def queries(n_rows: int, n_heads: int, head_dim: int) -> Tensor:
    rows = torch.randn(n_rows, n_heads, head_dim, generator=torch.Generator().manual_seed(n_rows))
    return rows.bfloat16() * (2 * head_dim**-0.5)


def computed(cache: KVCache, xq: Tensor, position: int) -> Tensor:
    cache.advance(position - cache.length)
    chunk = Chunk(cache, xq.shape[0])
    rope = RopeTable(xq.shape[2], 1e4, "cpu")
    return torch.cat(attend(xq, Batch([chunk], rope, xq.shape[2], xq.dtype), chunk, cache.layer(0)))


def defined(cache: KVCache, xq: Tensor, position: int, window: int | None) -> Tensor:
    """In float64, with one softmax over all that a row sees."""
    layer = cache.layer(0)
    pages = range(len(layer.group.pages))
    keys, values = (torch.cat([of(i) for i in pages], 1).double() for of in (layer.keys, layer.values))
    group = xq.shape[1] // len(keys)
    rows = torch.arange(position, position + len(xq))[:, None]
    at = torch.arange(keys.shape[1])[None]
    hidden = (at > rows) if window is None else (at > rows) | (at <= rows - window)
    heads = [
        ((xq[:, head].double() @ keys[head // group].T).masked_fill(hidden, -torch.inf)).softmax(-1)
        @ values[head // group]
        for head in range(xq.shape[1])
    ]
    return torch.stack(heads, 1).flatten(1)


@settings(max_examples=30, deadline=None)
@given(
    position=st.integers(0, 40) | st.integers(240, 300) | st.integers(500, 530),
    n_rows=st.integers(1, 40),
    window=st.none() | st.integers(1, 50) | st.integers(250, 270),
    n_kv_heads=st.sampled_from([1, 2, 3]),
    group=st.sampled_from([1, 3, 4, 17]),
    head_dim=st.sampled_from([32, 64, 160]),
)
def test_it_computes_the_definition(
    position: int, n_rows: int, window: int | None, n_kv_heads: int, group: int, head_dim: int
) -> None:
    cache = cached(n_kv_heads, position + n_rows, window, head_dim)
    xq = queries(n_rows, n_kv_heads * group, head_dim)
    expected = defined(cache, xq, position, window)
    got = computed(cache, xq, position)
    # Weights and results are rounded to bf16, of 2^-9 each.
    assert (got.double() - expected).norm() <= 0.004 * expected.norm()


@pytest.mark.parametrize("window", [None, 200])
@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_a_rows_bits_depend_neither_on_its_chunk_nor_on_threads(window: int | None, n_threads: int) -> None:
    xq = queries(600, 6, 32)
    whole = computed(cached(2, 600, window, 32), xq, 0)
    torch.set_num_threads(n_threads)
    try:
        for chunks in ([1] * 600, [16, 100, 1, 1, 254, 228], [3, 5, 504, 88]):
            cache, row, parts = cached(2, 600, window, 32), 0, []
            for n_rows in chunks:
                parts.append(computed(cache, xq[row : row + n_rows], row))
                row += n_rows
            assert torch.equal(torch.cat(parts), whole)
    finally:
        torch.set_num_threads(1)


def test_pages_that_no_row_sees_are_not_touched() -> None:
    cache = cached(2, 4 * PAGE, 20, 32)
    cache.layer(0).keys(0)[:] = torch.nan
    cache.layer(0).values(0)[:] = torch.nan
    cache.layer(0).keys(3)[:] = torch.nan
    assert computed(cache, queries(60, 4, 32), 600).isfinite().all()


@pytest.mark.parametrize("n_rows", [1, 5])
def test_stale_rows_and_the_pages_tail_are_not_seen(n_rows: int) -> None:
    cache, xq = cached(2, 60, None, 32), queries(n_rows, 4, 32)
    before = computed(cache, xq, 20)
    cache.layer(0).keys(0)[:, 20 + n_rows :] = 1e3
    cache.layer(0).values(0)[:, 20 + n_rows :] = 1e3
    assert torch.equal(computed(cache, xq, 20), before)


def test_a_row_that_is_not_finite_stays_so_and_harms_no_other() -> None:
    cache, xq = cached(2, 300, None, 32), queries(20, 4, 32)
    expected = computed(cache, xq, 280)
    xq[7, 1, 3] = torch.nan
    got = computed(cache, xq, 280)
    assert got[7, 32:64].isnan().all()
    got[7, 32:64] = expected[7, 32:64]
    assert torch.equal(got, expected)


def test_scores_far_apart_come_out_as_they_should() -> None:
    """A later page's scores may be larger than all before by more than fp32's exponents, or smaller."""
    cache, xq = cached(1, 2 * PAGE, None, 32), queries(1, 1, 32)
    for page, sign in ((0, 1), (1, -1), (1, 1)):
        cache.layer(0).keys(page)[:] = sign * 1000 * xq[0]
        got = computed(cache, xq, 2 * PAGE - 1)
        expected = defined(cache, xq, 2 * PAGE - 1, None)
        torch.testing.assert_close(got.double(), expected, atol=1e-3, rtol=1e-2)
