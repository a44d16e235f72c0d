"""Attention over pages of keys and values, for Triton. attention.py hands it tensors.

A program has a tile of rows of one session, with the query heads that share a KV head beside one another, and a share
of the positions that they see: for a few rows the positions are shared out among many programs (n_splits), whose parts
are put together afterwards. Source: Dao et al. 2022 and 2023 (FlashAttention, Flash-Decoding).
"""

import triton
import triton.language as tl

from node.model.ops.gpu.product_kernels import OPERAND


@triton.jit(do_not_specialize=["n_heads", "n_kv_heads", "window", "n_rows", "n_splits"])
def attend(
    xq, tile_rows, tile_sizes, tables, positions, pages, out, part_sums, part_maxima, part_totals,
    values_before, n_heads, n_kv_heads, window, n_rows, n_splits,
    GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, HD: tl.constexpr, PAGE: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, IS_SPLIT: tl.constexpr, HAS_WINDOW: tl.constexpr,
):  # fmt: skip
    """xq (T, H, hd), rotated and scaled -> out (T, H, hd) or, if it IS_SPLIT, parts of it: part_sums fp32
    (n_splits, T, H, hd), and part_maxima and part_totals (n_splits, T, H).

    tile_rows, tile_sizes: a tile's first row, and how many it has, BM // GROUP at most. tables, positions, pages,
    values_before: see rotate_and_write. Every value of a page is finite.
    """
    tile = tl.program_id(0)
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    first_row = tl.load(tile_rows + tile)
    size = tl.load(tile_sizes + tile)
    position = tl.load(positions + first_row).to(tl.int32)
    table = tl.load(tables + first_row)

    lanes = tl.arange(0, BM)
    rows = first_row + lanes // GROUP
    heads = kv_head * GROUP + lanes % GROUP
    is_row = lanes // GROUP < size
    own = position + lanes // GROUP  # positions of the rows
    dims = tl.arange(0, HD)
    is_dim = dims < HEAD_DIM
    q_at = (rows * n_heads + heads)[:, None] * HEAD_DIM + dims[None, :]
    q = tl.load(xq + q_at, mask=is_row[:, None] & is_dim[None, :], other=0.0).to(OPERAND)

    end = position + size.to(tl.int32)
    begin = 0
    if HAS_WINDOW:
        begin = tl.maximum(0, position - window + 1) // BN * BN
    n_blocks = tl.cdiv(tl.cdiv(end - begin, BN), n_splits)
    from_key = begin + split * n_blocks * BN
    to_key = tl.minimum(end, from_key + n_blocks * BN)

    maxima = tl.full((BM,), float("-inf"), tl.float32)
    totals = tl.zeros((BM,), tl.float32)
    sums = tl.zeros((BM, HD), tl.float32)
    in_block = tl.arange(0, BN)
    for key in range(from_key, to_key, BN):
        address = tl.load(pages + table + key // PAGE)
        page = tl.multiple_of(address.to(tl.pointer_type(tl.bfloat16)), 16) + values_before
        page += kv_head * PAGE * HEAD_DIM + key % PAGE * HEAD_DIM
        at = in_block[None, :] * HEAD_DIM + dims[:, None]  # (HD, BN)
        keys = tl.load(page + at, mask=is_dim[:, None], other=0.0).to(OPERAND)
        scores = tl.dot(q, keys, input_precision="ieee")  # (BM, BN)
        theirs = key + in_block
        is_seen = theirs[None, :] <= own[:, None]
        if HAS_WINDOW:
            is_seen = is_seen & (theirs[None, :] > own[:, None] - window)
        scores = tl.where(is_seen, scores, float("-inf"))
        now = tl.maximum(maxima, tl.max(scores, 1))
        safe = tl.where(now == float("-inf"), 0.0, now)  # nothing of this share is seen so far
        faded = tl.exp(maxima - safe)
        weights = tl.exp(scores - safe[:, None])
        totals = totals * faded + tl.sum(weights, 1)
        maxima = now
        at = in_block[:, None] * HEAD_DIM + dims[None, :]  # (BN, HD)
        values = page + n_kv_heads * PAGE * HEAD_DIM
        values = tl.load(values + at, mask=is_dim[None, :], other=0.0).to(OPERAND)
        sums = tl.dot(weights.to(tl.bfloat16).to(OPERAND), values, sums * faded[:, None], input_precision="ieee")
    mask = is_row[:, None] & is_dim[None, :]
    if IS_SPLIT:
        of_split = split * n_rows * n_heads
        tl.store(part_sums + of_split.to(tl.int64) * HEAD_DIM + q_at, sums, mask=mask)
        tl.store(part_maxima + of_split + rows * n_heads + heads, maxima, mask=is_row)
        tl.store(part_totals + of_split + rows * n_heads + heads, totals, mask=is_row)
    else:
        tl.store(out + q_at, (sums / totals[:, None]).to(tl.bfloat16), mask=mask)


@triton.jit(do_not_specialize=["n_row_heads", "n_splits"])
def put_together(
    part_sums, part_maxima, part_totals, out, n_row_heads, n_splits,
    HEAD_DIM: tl.constexpr, HD: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """The parts of a row's head, each of some positions, as if they had been one. SPLITS: n_splits at most."""
    row_head = tl.program_id(0)
    splits = tl.arange(0, SPLITS)
    dims = tl.arange(0, HD)
    is_dim = dims < HEAD_DIM
    at = splits * n_row_heads + row_head
    is_split = splits < n_splits
    maxima = tl.load(part_maxima + at, mask=is_split, other=float("-inf"))
    shares = tl.exp(maxima - tl.max(maxima, 0))
    total = tl.sum(tl.load(part_totals + at, mask=is_split, other=0.0) * shares, 0)
    mask = is_split[:, None] & is_dim[None, :]
    sums = tl.load(part_sums + at[:, None] * HEAD_DIM + dims[None, :], mask=mask, other=0.0)
    tl.store(out + row_head * HEAD_DIM + dims, (tl.sum(sums * shares[:, None], 0) / total).to(tl.bfloat16), mask=is_dim)
