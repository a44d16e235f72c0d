"""Grouped-query attention over a session's cached keys and values, causal, with an optional sliding window.

Two ways to compute the same sum. A few rows (decode, speculation) read the whole cache in one product per KV head
group, with a mask for what they must not see. Many rows (prefill) go in tiles: each tile reads only the keys that some
row of it sees, so masked tiles cost nothing and the scores' memory is bounded however long the prompt is.

Scores are plain matrix products, not scaled_dot_product_attention: on a CPU that runs a slow kernel per query head,
while here the query heads that share a KV head are rows of one product.
"""

from __future__ import annotations

import torch
from torch import Tensor

from node.model.cache import LayerCache
from node.model.linear import Linear
from node.model.rope import rotate

MAX_DECODE_ROWS = 16
"""Chunks up to this many rows are computed as decode: below it a mask over all keys costs less than tiling."""

TILE_ROWS = 128
MAX_TILE_SCORES = 1 << 23
"""Bound on one tile's scores (32 MiB in fp32): tiles of long contexts have fewer than TILE_ROWS rows."""


class Chunk:
    """What the layers of one step share: where its rows are, their rotations, and the decode masks.

    position: of the first row. q_rotations carry the scores' factor 1/sqrt(head_dim) too.
    """

    __slots__ = ("_masks", "dtype", "k_rotations", "n_rows", "position", "q_rotations")

    def __init__(self, position: int, n_rows: int, rotations: Tensor, head_dim: int, dtype: torch.dtype) -> None:
        self.position = position
        self.n_rows = n_rows
        self.k_rotations = rotations
        self.q_rotations = rotations * head_dim**-0.5
        self.dtype = dtype
        self._masks: dict[tuple[int, int, int | None], Tensor] = {}

    def mask(self, kv: LayerCache) -> Tensor:
        """(T, capacity): 0 where row t sees the buffer's row, else -inf. Built once for all layers that are alike."""
        key = (kv.start, kv.capacity, kv.window)
        mask = self._masks.get(key)
        if mask is None:
            mask = torch.full((self.n_rows, kv.capacity), -torch.inf, dtype=self.dtype, device=kv.keys.device)
            for row in range(self.n_rows):
                end = self.position + row + 1
                mask[row, first_visible(end - 1, kv) - kv.start : end - kv.start] = 0
            self._masks[key] = mask
        return mask


class Attention:
    """h (T, D), normalised -> (T, D), after writing the chunk's keys and values to the layer's cache.

    wqkv: wq, wk and wv stacked, rows in the interleaved layout (see rope).
    """

    __slots__ = ("head_dim", "n_heads", "n_kv_heads", "wo", "wqkv")

    def __init__(self, wqkv: Linear, wo: Linear, n_heads: int, n_kv_heads: int, head_dim: int) -> None:
        self.wqkv = wqkv
        self.wo = wo
        self.n_heads = n_heads
        self.n_kv_heads = n_kv_heads
        self.head_dim = head_dim

    def __call__(self, h: Tensor, chunk: Chunk, kv: LayerCache) -> Tensor:
        n_heads, n_kv_heads = self.n_heads, self.n_kv_heads
        xqkv = self.wqkv(h).view(h.shape[0], -1, self.head_dim)  # (T, D) -> (T, H + 2 KVH, hd)
        xqk = xqkv[:, : n_heads + n_kv_heads].float()
        xq = rotate(xqk[:, :n_heads], chunk.q_rotations).to(h.dtype)  # (T, H, hd)
        xk = rotate(xqk[:, n_heads:], chunk.k_rotations)  # (T, KVH, hd)
        kv.write(chunk.position, xk, xqkv[:, n_heads + n_kv_heads :])
        attend = attend_rows if chunk.n_rows <= MAX_DECODE_ROWS else attend_tiles
        return self.wo(attend(xq, chunk, kv))


def attend_rows(xq: Tensor, chunk: Chunk, kv: LayerCache) -> Tensor:
    """Attention of a few rows xq (T, H, hd), rotated and scaled, over the whole buffer -> (T, H * hd)."""
    n_rows, n_heads, head_dim = xq.shape
    n_kv_heads = kv.keys.shape[0]
    grouped = _group(xq, n_kv_heads).reshape(n_kv_heads, -1, head_dim)  # (KVH, G, T, hd) -> (KVH, G * T, hd)
    mask = chunk.mask(kv)
    if n_rows > 1:
        mask = mask.repeat(n_heads // n_kv_heads, 1)  # (T, capacity) -> (G * T, capacity)
    scores = torch.bmm(grouped, kv.keys.transpose(1, 2)).add_(mask)  # (KVH, G * T, capacity)
    out = torch.bmm(scores.softmax(-1), kv.values)  # (KVH, G * T, hd)
    return _ungroup(out.view(n_kv_heads, -1, n_rows, head_dim))


def attend_tiles(xq: Tensor, chunk: Chunk, kv: LayerCache) -> Tensor:
    """Attention of many rows xq (T, H, hd), rotated and scaled, tile by tile -> (T, H * hd)."""
    n_rows, n_heads, _ = xq.shape
    n_kv_heads = kv.keys.shape[0]
    grouped = _group(xq, n_kv_heads)  # (KVH, G, T, hd)
    out = torch.empty(grouped.shape, dtype=xq.dtype, device=xq.device)
    for row, end_row in _tiles(n_rows, n_heads // n_kv_heads, chunk.position):
        position, end = chunk.position + row, chunk.position + end_row
        start = first_visible(position, kv)
        keys = kv.keys[:, start - kv.start : end - kv.start]  # (KVH, L, hd)
        values = kv.values[:, start - kv.start : end - kv.start]
        # The tile's own rows are its last t keys; what its later rows lose sight of is among its first t keys.
        future = _minus_infinity(end_row - row, xq).triu(1)
        past = None if first_visible(end - 1, kv) == start else _minus_infinity(end_row - row, xq)
        if past is not None and kv.window is not None:
            past = past.tril(position - kv.window - start)  # row i sees the keys from position + i - window + 1 on
        for head in range(n_kv_heads):
            scores = grouped[head, :, row:end_row] @ keys[head].T  # (G, t, hd) x (hd, L) -> (G, t, L)
            scores[..., row - end_row :] += future
            if past is not None:
                scores[..., : end_row - row] += past
            out[head, :, row:end_row] = scores.softmax(-1) @ values[head]
    return _ungroup(out)


def first_visible(position: int, kv: LayerCache) -> int:
    """The first position that a query at `position` sees: its window counts the query itself."""
    return 0 if kv.window is None else max(0, position - kv.window + 1)


def _group(xq: Tensor, n_kv_heads: int) -> Tensor:
    n_rows, _, head_dim = xq.shape
    return xq.view(n_rows, n_kv_heads, -1, head_dim).permute(1, 2, 0, 3)  # (T, H, hd) -> (KVH, G, T, hd)


def _ungroup(out: Tensor) -> Tensor:
    return out.permute(2, 0, 1, 3).reshape(out.shape[2], -1)  # (KVH, G, T, hd) -> (T, H * hd)


def _tiles(n_rows: int, group: int, position: int) -> list[tuple[int, int]]:
    """Cut [0, n_rows) so that group * rows * keys of each tile stays under MAX_TILE_SCORES."""
    most = MAX_TILE_SCORES // (group * (position + n_rows))
    step = max(1, min(TILE_ROWS, most))
    return [(row, min(row + step, n_rows)) for row in range(0, n_rows, step)]


def _minus_infinity(n_rows: int, like: Tensor) -> Tensor:
    return torch.full((n_rows, n_rows), -torch.inf, dtype=like.dtype, device=like.device)
