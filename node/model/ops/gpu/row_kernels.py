"""What happens to a row between two products, for Triton: norms, rotations, routing, mixing; and to its logits.

Everything is computed in fp32 and rounded to bf16 where node.model's own text rounds. A program has a row of its own,
but for grouping, where it has a few pairs of a row and an expert.
"""

import triton
import triton.language as tl

LEAST = tl.constexpr(-3.4e38)
"""Less than any logit, which is bf16, and still finite."""


@triton.jit
def _normalised(h, weight, epsilon, dim):
    """h, weight: (D) fp32, of one row."""
    return h * tl.rsqrt(tl.sum(h * h, 0) / dim + epsilon) * weight


@triton.jit
def normalise(h, weight, out, epsilon, dim, D: tl.constexpr):
    row = tl.program_id(0)
    dims = tl.arange(0, D)
    is_dim = dims < dim
    values = tl.load(h + row * dim + dims, mask=is_dim, other=0.0).to(tl.float32)
    scale = tl.load(weight + dims, mask=is_dim, other=0.0).to(tl.float32)
    normed = _normalised(values, scale, epsilon, dim)
    tl.store(out + row * dim + dims, normed.to(tl.bfloat16), mask=is_dim)


@triton.jit(do_not_specialize=["n_heads", "n_kv_heads"])
def rotate_and_write(
    qkv, rotations, tables, positions, pages, xq, values_before, scale, n_heads, n_kv_heads,
    HEAD_DIM: tl.constexpr, HALF: tl.constexpr, PAGE: tl.constexpr,
):  # fmt: skip
    """qkv (T, H + 2 KVH, hd): queries rotated and scaled go to xq (T, H, hd), keys rotated and values to their page.

    rotations: fp32 (P, hd / 2, 2), of every position. tables: of a row, where its session's page addresses begin among
    pages, less the number of the first. values_before: of a page, before this layer's.
    """
    row = tl.program_id(0)
    head = tl.program_id(1)
    position = tl.load(positions + row)
    pairs = tl.arange(0, HALF)
    is_pair = pairs < HEAD_DIM // 2
    source = qkv + (row * (n_heads + 2 * n_kv_heads) + head) * HEAD_DIM + 2 * pairs
    first = tl.load(source, mask=is_pair, other=0.0).to(tl.float32)
    second = tl.load(source + 1, mask=is_pair, other=0.0).to(tl.float32)
    if head < n_heads + n_kv_heads:
        turn = rotations + position * HEAD_DIM + 2 * pairs
        cos = tl.load(turn, mask=is_pair, other=0.0)
        sin = tl.load(turn + 1, mask=is_pair, other=0.0)
        if head < n_heads:
            cos *= scale
            sin *= scale
        turned = first * cos - second * sin
        second = first * sin + second * cos
        first = turned
    if head < n_heads:
        target = xq + (row * n_heads + head) * HEAD_DIM + 2 * pairs
        tl.store(target, first.to(tl.bfloat16), mask=is_pair)
        tl.store(target + 1, second.to(tl.bfloat16), mask=is_pair)
    else:
        address = tl.load(pages + tl.load(tables + row) + position // PAGE)
        page = address.to(tl.pointer_type(tl.bfloat16)) + values_before
        target = page + (head - n_heads) * PAGE * HEAD_DIM + position % PAGE * HEAD_DIM + 2 * pairs
        tl.store(target, first.to(tl.bfloat16), mask=is_pair)
        tl.store(target + 1, second.to(tl.bfloat16), mask=is_pair)


@triton.jit(do_not_specialize=["n_experts"])
def normalise_and_route(
    h, weight, router, x, weights, chosen, counts, epsilon, dim, n_experts,
    K: tl.constexpr, E: tl.constexpr, D: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Of each row the norm x (T, D) and its K best experts, ascending: weights (T, K), chosen (T, K). counts (E): more
    by one for each that was chosen. Of equal experts the first are the better; K are chosen whatever the row holds: a
    place left empty would be read as an expert's number.
    """
    row = tl.program_id(0)
    dims = tl.arange(0, D)
    is_dim = dims < dim
    values = tl.load(h + row * dim + dims, mask=is_dim, other=0.0).to(tl.float32)
    inverse = tl.rsqrt(tl.sum(values * values, 0) / dim + epsilon)
    normed = values * inverse * tl.load(weight + dims, mask=is_dim, other=0.0).to(tl.float32)
    tl.store(x + row * dim + dims, normed.to(tl.bfloat16), mask=is_dim)
    experts = tl.arange(0, E)
    is_expert = experts < n_experts
    sums = tl.zeros((E, BD), tl.float32)
    for first in range(0, dim, BD):
        part = first + tl.arange(0, BD)
        is_part = part < dim
        # Computed again rather than kept: a row is short, and what a program writes another of its threads may not see.
        some = tl.load(h + row * dim + part, mask=is_part, other=0.0).to(tl.float32) * inverse
        some *= tl.load(weight + part, mask=is_part, other=0.0).to(tl.float32)
        some = some.to(tl.bfloat16).to(tl.float32)
        there = router + experts[:, None] * dim + part[None, :]
        sums += tl.load(there, mask=is_expert[:, None] & is_part[None, :], other=0.0).to(tl.float32) * some[None, :]
    logits = tl.where(is_expert, tl.sum(sums, 1).to(tl.bfloat16).to(tl.float32), float("-inf"))
    left = tl.where(logits > LEAST, logits, LEAST)  # above what was chosen, and no NaN, which no maximum finds
    left = tl.where(is_expert, left, float("-inf"))
    is_chosen = experts < 0
    for _ in range(K):
        best = tl.argmax(left, 0, tie_break_left=True)
        is_chosen = is_chosen | (experts == best)
        left = tl.where(experts == best, float("-inf"), left)
    shares = tl.where(is_chosen, tl.exp(logits - tl.max(logits, 0)), 0.0)
    shares /= tl.sum(shares, 0)
    ranks = tl.cumsum(is_chosen.to(tl.int32), 0)
    tl.store(weights + row * K + ranks - 1, shares, mask=is_chosen)
    tl.store(chosen + row * K + ranks - 1, experts, mask=is_chosen)
    tl.atomic_add(counts + experts, is_chosen.to(tl.int32), mask=is_chosen)


@triton.jit(do_not_specialize=["n_pairs", "n_experts"])
def group(chosen, order, starts, n_pairs, n_experts, E: tl.constexpr, B: tl.constexpr):
    """chosen (n_pairs) -> order: the pairs by expert, an expert's in their own order; starts (E + 1): of each."""
    pairs = tl.program_id(0) * B + tl.arange(0, B)
    is_pair = pairs < n_pairs
    mine = tl.load(chosen + pairs, mask=is_pair, other=0)
    before = tl.zeros((B,), tl.int32)
    for first in range(0, n_pairs, B):
        others = first + tl.arange(0, B)
        theirs = tl.load(chosen + others, mask=others < n_pairs, other=n_experts)
        is_before = (theirs[None, :] < mine[:, None]) | (
            (theirs[None, :] == mine[:, None]) & (others[None, :] < pairs[:, None])
        )
        before += tl.sum(is_before.to(tl.int32), 1)
    tl.store(order + before, pairs, mask=is_pair)
    if tl.program_id(0) == 0:
        experts = tl.arange(0, E)
        begin = tl.zeros((E,), tl.int32)
        for first in range(0, n_pairs, B):
            others = first + tl.arange(0, B)
            theirs = tl.load(chosen + others, mask=others < n_pairs, other=n_experts + E)
            begin += tl.sum((theirs[None, :] < experts[:, None]).to(tl.int32), 1)
        tl.store(starts + experts, begin, mask=experts <= n_experts)


@triton.jit
def mix(
    h, answers, weights, norm, out, x, epsilon, dim,
    K: tl.constexpr, HAS_NORM: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """h + the weighted sum of a row's K answers -> out, and the norm of that -> x."""
    row = tl.program_id(0)
    dims = tl.arange(0, D)
    is_dim = dims < dim
    mixed = tl.zeros((D,), tl.float32)
    for nth in tl.static_range(K):
        answer = tl.load(answers + (row * K + nth) * dim + dims, mask=is_dim, other=0.0).to(tl.float32)
        mixed += answer * tl.load(weights + row * K + nth)
    before = tl.load(h + row * dim + dims, mask=is_dim, other=0.0).to(tl.float32)
    after = (before + mixed.to(tl.bfloat16).to(tl.float32)).to(tl.bfloat16)
    tl.store(out + row * dim + dims, after, mask=is_dim)
    if HAS_NORM:
        scale = tl.load(norm + dims, mask=is_dim, other=0.0).to(tl.float32)
        normed = _normalised(after.to(tl.float32), scale, epsilon, dim)
        tl.store(x + row * dim + dims, normed.to(tl.bfloat16), mask=is_dim)


@triton.jit
def greatest(logits, out, vocab_size, B: tl.constexpr):
    """Of each row the largest, the first id that has it, and the log-sum-exp -> out (T, 3)."""
    row = tl.program_id(0).to(tl.int64)
    best = float("-inf")
    best_id = 0
    total = 0.0
    for first in range(0, vocab_size, B):
        ids = first + tl.arange(0, B)
        some = tl.load(logits + row * vocab_size + ids, mask=ids < vocab_size, other=float("-inf"))
        most = tl.max(some, 0)
        now = tl.maximum(best, most)
        if most > best:
            best_id = first + tl.argmax(some, 0, tie_break_left=True)
        safe = tl.where(now == float("-inf"), 0.0, now)
        total = total * tl.exp(best - safe) + tl.sum(tl.exp(some - safe), 0)
        best = now
    tl.store(out + 3 * row, best)
    tl.store(out + 3 * row + 1, best_id.to(tl.float32))
    tl.store(out + 3 * row + 2, best + tl.log(total))
