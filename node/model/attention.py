"""Grouped-query attention over sessions' cached keys and values, causal, with an optional sliding window.

Where this machine runs our own kernels, ops/native/attention.c is what computes. On other CPUs the query heads that
share a KV head are rows of one product, page by page of the cache: the scores of all pages that some row sees, one
softmax over them, then the pages' values added up in fp32, first page first. A page's products have the same shape
wherever the page stands, and what a row must not see adds exact zeros. In both, a row's bits do not depend on the chunk
that it came in, nor on how much is cached after it.

Scores are plain matrix products there, not scaled_dot_product_attention: on a CPU that runs a slow kernel per query
head, and it sums in an order that depends on the chunk. On other devices, which promise no bits, that is what computes,
over the pages put side by side; but where they run our own kernels whole layers do (see on_gpu).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from node.model.batch import Batch, Chunk
from node.model.cache import LayerCache
from node.model.ops import Linear, native
from node.model.pages import PAGE
from node.model.rope import rotate

TILE_ROWS = 128
MAX_TILE_SCORES = 1 << 23
"""Bound on one tile's scores per KV head (32 MiB in fp32): tiles of long contexts have fewer than TILE_ROWS rows."""


class Attention:
    """h (T, D), normalised -> (T, D), after writing the batch's keys and values to the sessions' caches.

    wqkv: wq, wk and wv stacked, rows in the interleaved layout (see rope).
    """

    __slots__ = ("head_dim", "n_heads", "n_kv_heads", "wo", "wqkv")

    def __init__(self, wqkv: Linear, wo: Linear, n_heads: int, n_kv_heads: int, head_dim: int) -> None:
        self.wqkv = wqkv
        self.wo = wo
        self.n_heads = n_heads
        self.n_kv_heads = n_kv_heads
        self.head_dim = head_dim

    def __call__(self, h: Tensor, batch: Batch, layer_idx: int) -> Tensor:
        n_heads, n_kv_heads = self.n_heads, self.n_kv_heads
        xqkv = self.wqkv(h).view(h.shape[0], -1, self.head_dim)  # (T, D) -> (T, H + 2 KVH, hd)
        xqk = xqkv[:, : n_heads + n_kv_heads].float()
        xq = rotate(xqk[:, :n_heads], batch.q_rotations).to(h.dtype)  # (T, H, hd)
        xk = rotate(xqk[:, n_heads:], batch.k_rotations).to(h.dtype).transpose(0, 1)  # -> (KVH, T, hd)
        xv = xqkv[:, n_heads + n_kv_heads :].transpose(0, 1)  # (T, KVH, hd) -> (KVH, T, hd)
        outs = []
        row = 0
        for chunk in batch.chunks:
            end = row + chunk.n_rows
            kv = chunk.cache.layer(layer_idx)
            kv.write(chunk.position, xk[:, row:end], xv[:, row:end])
            outs += attend(xq[row:end], batch, chunk, kv)
            row = end
        return self.wo(outs[0] if len(outs) == 1 else torch.cat(outs))


def attend(xq: Tensor, batch: Batch, chunk: Chunk, kv: LayerCache) -> list[Tensor]:
    """Attention of a chunk's rows xq (T, H, hd), rotated and scaled, tile by tile -> (t, H * hd) each."""
    if _is_native(xq):
        return [_attend_natively(xq, chunk.position, kv)]
    if xq.device.type != "cpu":
        return [attend_at_once(xq, chunk.position, kv)]
    n_kv_heads = kv.group.shape[1]
    group = xq.shape[1] // n_kv_heads
    most = MAX_TILE_SCORES // (group * (chunk.position + chunk.n_rows + PAGE))
    step = max(1, min(TILE_ROWS, most))
    return [
        _attend_tile(xq[row : row + step], batch, chunk.position + row, kv, n_kv_heads)
        for row in range(0, chunk.n_rows, step)
    ]


def _is_native(xq: Tensor) -> bool:
    if xq.device.type != "cpu" or xq.dtype != torch.bfloat16:
        return False
    return native.fits(xq.shape[2]) and native.why_absent() is None


def _attend_natively(xq: Tensor, position: int, kv: LayerCache) -> Tensor:
    first = kv.group.first_visible(position) // PAGE
    last = (position + xq.shape[0] - 1) // PAGE
    pages = kv.group.pages[first - kv.group.first_page : last - kv.group.first_page + 1]
    return native.attend(xq, [page.tensor for page in pages], kv.nth, first, position, kv.group.window)


def attend_at_once(xq: Tensor, position: int, kv: LayerCache) -> Tensor:
    """Rows xq (T, H, hd), the first of them at position, by the library's kernel over a copy of the pages."""
    n_rows, n_heads, head_dim = xq.shape
    window, n_kv_heads = kv.group.window, kv.group.shape[1]
    first, end = kv.group.first_visible(position) // PAGE, (position + n_rows - 1) // PAGE + 1
    pages = range(first - kv.group.first_page, end - kv.group.first_page)
    n_keys = position + n_rows - first * PAGE
    keys, values = (torch.cat([of(i) for i in pages], 1)[:, :n_keys] for of in (kv.keys, kv.values))  # (KVH, S, hd)
    q = xq.view(n_rows, n_kv_heads, -1, head_dim).permute(1, 2, 0, 3).reshape(n_kv_heads, -1, head_dim)
    mask = None
    if n_rows > 1 or window is not None:
        own = torch.arange(position, position + n_rows, device=xq.device)[:, None]  # (T, 1)
        theirs = torch.arange(first * PAGE, first * PAGE + n_keys, device=xq.device)[None]  # (1, S)
        mask = theirs <= own
        if window is not None:
            mask &= theirs > own - window
        mask = mask.repeat(n_heads // n_kv_heads, 1)  # (G * T, S)
    out = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask, scale=1.0)  # (KVH, G * T, hd)
    return out.view(n_kv_heads, -1, n_rows, head_dim).permute(2, 0, 1, 3).reshape(n_rows, n_heads * head_dim)


def _attend_tile(xq: Tensor, batch: Batch, position: int, kv: LayerCache, n_kv_heads: int) -> Tensor:
    """Rows xq (t, H, hd), the first of them at position -> (t, H * hd)."""
    n_rows, n_heads, head_dim = xq.shape
    group = n_heads // n_kv_heads
    grouped = xq.view(n_rows, n_kv_heads, group, head_dim).permute(1, 2, 0, 3)  # (t, H, hd) -> (KVH, G, t, hd)
    grouped = grouped.reshape(n_kv_heads, group * n_rows, head_dim)
    first = kv.group.first_visible(position) // PAGE
    last = (position + n_rows - 1) // PAGE
    scores = []
    for page in range(first, last + 1):
        score = torch.bmm(grouped, kv.keys(page - kv.group.first_page).transpose(1, 2))  # (KVH, G * t, PAGE)
        mask = batch.mask(position, n_rows, page, kv.group)
        if mask is not None:
            score.view(n_kv_heads, group, n_rows, PAGE).add_(mask)
        scores.append(score)
    if first == last:
        out = torch.bmm(scores[0].softmax(-1), kv.values(first - kv.group.first_page))  # (KVH, G * t, hd)
    else:
        # The softmax's sum goes over the pages in order, and its tail of zeros changes no bit of it.
        weights = torch.cat(scores, -1).softmax(-1)  # (KVH, G * t, pages * PAGE)
        total = None
        for nth, page in enumerate(range(first, last + 1)):
            part = torch.bmm(weights[..., nth * PAGE : (nth + 1) * PAGE], kv.values(page - kv.group.first_page))
            total = part.float() if total is None else total.add_(part)
        assert total is not None
        out = total.to(xq.dtype)
    out = out.view(n_kv_heads, group, n_rows, head_dim).permute(2, 0, 1, 3)  # -> (t, KVH, G, hd)
    return out.reshape(n_rows, n_heads * head_dim)
