"""Products of rows with matrices that are read once, for Triton. products.py hands them tensors.

A matrix is named by its address in a table, so that one kernel serves a single matrix and the experts of a layer, each
of which lies where it was loaded. ELEMENT: 16 for bf16, 8 for int8 (stored with 128 added) with a scale per output
channel, 4 for int4 (0 to 15, of which 8 is the middle) with a scale and a middle per 32 values. N_MATRICES: 2 for a
gate, whose second matrix lies behind its first.

Sums are fp32, along a row from its first value to its last; a result is rounded once.
"""

import triton
import triton.language as tl

INTERPRETED = triton.knobs.runtime.interpret
"""Whether this process runs the kernels in Triton's interpreter, on a CPU: it has no products of bf16 tiles."""

OPERAND = tl.constexpr(tl.float32 if INTERPRETED else tl.bfloat16)

GROUP = tl.constexpr(32)
"""Values that share a scale and a middle in int4: 16 bytes, the first halves of all before the second ones."""


@triton.jit
def _matrix(table, expert, ELEMENT: tl.constexpr):
    """The address of an expert's matrix as a pointer to its values."""
    address = tl.load(table + expert)
    if ELEMENT == 16:
        return tl.multiple_of(address.to(tl.pointer_type(tl.bfloat16)), 16)
    else:
        return tl.multiple_of(address.to(tl.pointer_type(tl.uint8)), 16)


@triton.jit
def _scales(table, expert, ELEMENT: tl.constexpr):
    """int8: fp32 (n_out). int4: bf16 (n_out, groups, 2)."""
    address = tl.load(table + expert)
    if ELEMENT == 8:
        return address.to(tl.pointer_type(tl.float32))
    else:
        return address.to(tl.pointer_type(tl.bfloat16))


@triton.jit
def _second(values, scales, n_out, n_in, ELEMENT: tl.constexpr):
    """Values and scales of a gate's second matrix, given those of its first."""
    if ELEMENT == 4:
        n_groups = n_out.to(tl.int64) * tl.cdiv(n_in, GROUP)
        return values + n_groups * (GROUP // 2), scales + 2 * n_groups
    elif ELEMENT == 8:
        return values + n_out.to(tl.int64) * n_in, scales + n_out
    else:
        return values + n_out.to(tl.int64) * n_in, scales


@triton.jit
def _less(whole, middle: tl.constexpr):
    """whole, int32 in 0..255, less a middle, fp32. A GPU converts at a quarter of the speed at which it adds: so the
    number is put into the last bits of 2^23.
    """
    return (whole | 0x4B000000).to(tl.float32, bitcast=True) - (8388608.0 + middle)


@triton.jit
def _halves(packed):
    """Bytes -> the first and the second of the two values of each, less their middle, fp32."""
    both = packed.to(tl.int32)
    return _less(both & 15, 8), _less(both >> 4, 8)


@triton.jit
def _scales_and_middles(scales, columns, groups, n_groups, is_there):
    """fp32 (BN, BG, 1) each."""
    where = scales + 2 * (columns[:, None] * n_groups + groups[None, :])
    scale = tl.load(where, mask=is_there, other=0.0).to(tl.float32)
    middle = tl.load(where + 1, mask=is_there, other=0.0).to(tl.float32)
    return scale[:, :, None], middle[:, :, None]


@triton.jit
def _valued(stored, ELEMENT: tl.constexpr):
    """Values of bf16 or int8, fp32; without int8's scale."""
    if ELEMENT == 8:
        return _less(stored.to(tl.int32), 128)
    else:
        return stored.to(tl.float32)


@triton.jit
def _row_sums(values, scales, x, columns, n_out, n_in, ELEMENT: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """The product of one row x with the columns' rows of a matrix, fp32 (BN)."""
    inside = (columns < n_out)[:, None]
    if ELEMENT == 4:
        n_groups = tl.cdiv(n_in, GROUP)
        sums = tl.zeros((BN, BK // GROUP, GROUP // 2), tl.float32)
        in_group = tl.arange(0, GROUP // 2)
        for first in range(0, n_groups, BK // GROUP):
            groups = first + tl.arange(0, BK // GROUP)
            is_there = inside & (groups < n_groups)[None, :]
            at = (columns[:, None] * n_groups + groups[None, :])[:, :, None] * (GROUP // 2) + in_group[None, None, :]
            packed = tl.load(values + at, mask=is_there[:, :, None], other=0)
            scale, middle = _scales_and_middles(scales, columns, groups, n_groups, is_there)
            low, high = _halves(packed)
            ks = groups[:, None] * GROUP + in_group[None, :]
            x_low = tl.load(x + ks, mask=ks < n_in, other=0.0).to(tl.float32)
            x_high = tl.load(x + ks + GROUP // 2, mask=ks + GROUP // 2 < n_in, other=0.0).to(tl.float32)
            product = low * x_low[None, :, :] + high * x_high[None, :, :]
            sums += scale * product + middle * (x_low + x_high)[None, :, :]
        return tl.sum(tl.sum(sums, 2), 1)
    else:
        total = tl.zeros((BN, BK), tl.float32)
        for first in range(0, n_in, BK):
            ks = first + tl.arange(0, BK)
            is_there = inside & (ks < n_in)[None, :]
            weight = tl.load(values + columns[:, None] * n_in + ks[None, :], mask=is_there, other=0)
            total += _valued(weight, ELEMENT) * tl.load(x + ks, mask=ks < n_in, other=0.0).to(tl.float32)[None, :]
        product = tl.sum(total, 1)
        if ELEMENT == 8:
            product *= tl.load(scales + columns, mask=columns < n_out, other=0.0)
        return product


@triton.jit
def multiply_row(
    x, table, scale_table, experts, residual, out,
    n_out, n_in, x_stride,
    ELEMENT: tl.constexpr, N_MATRICES: tl.constexpr, HAS_EXPERTS: tl.constexpr, X_PER_PAIR: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """One row, through one matrix or through the experts that it chose: out[p] of the p-th of them.

    X_PER_PAIR: the p-th expert has a row of its own, x[p]; else all have x[0]. residual: added after rounding.
    """
    columns = tl.program_id(0) * BN + tl.arange(0, BN)
    pair = tl.program_id(1)
    expert = tl.load(experts + pair) if HAS_EXPERTS else 0
    values = _matrix(table, expert, ELEMENT)
    scales = values if ELEMENT == 16 else _scales(scale_table, expert, ELEMENT)
    row = x + pair * x_stride if X_PER_PAIR else x
    product = _row_sums(values, scales, row, columns, n_out, n_in, ELEMENT, BN, BK)
    if N_MATRICES == 2:
        values, scales = _second(values, scales, n_out, n_in, ELEMENT)
        other = _row_sums(values, scales, row, columns, n_out, n_in, ELEMENT, BN, BK)
        product = product / (1 + tl.exp(-product)) * other
    at = pair * n_out + columns
    rounded = product.to(tl.bfloat16)
    if HAS_RESIDUAL:
        before = tl.load(residual + at, mask=columns < n_out, other=0.0).to(tl.float32)
        rounded = (before + rounded.to(tl.float32)).to(tl.bfloat16)
    tl.store(out + at, rounded, mask=columns < n_out)


@triton.jit
def _tile_sums(
    values, scales, x, x_rows, is_row, columns, n_out, n_in, x_stride,
    ELEMENT: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """The products of rows of x with the columns' rows of a matrix, fp32 (BM, BN)."""
    sums = tl.zeros((BM, BN), tl.float32)
    here = x + x_rows[:, None] * x_stride
    if ELEMENT == 4:
        n_groups = tl.cdiv(n_in, GROUP)
        in_group = tl.arange(0, GROUP // 2)
        ks_of_half = tl.arange(0, BK // 2) // (GROUP // 2) * GROUP + tl.arange(0, BK // 2) % (GROUP // 2)
        for first in range(0, n_groups, BK // GROUP):
            groups = first + tl.arange(0, BK // GROUP)
            is_there = (columns < n_out)[:, None] & (groups < n_groups)[None, :]
            at = (columns[:, None] * n_groups + groups[None, :])[:, :, None] * (GROUP // 2) + in_group[None, None, :]
            packed = tl.load(values + at, mask=is_there[:, :, None], other=0)
            scale, middle = _scales_and_middles(scales, columns, groups, n_groups, is_there)
            low, high = _halves(packed)
            low = tl.reshape(low * scale + middle, (BN, BK // 2))
            high = tl.reshape(high * scale + middle, (BN, BK // 2))
            ks = first * GROUP + ks_of_half
            x_low = tl.load(here + ks[None, :], mask=is_row[:, None] & (ks < n_in)[None, :], other=0.0)
            ks += GROUP // 2
            x_high = tl.load(here + ks[None, :], mask=is_row[:, None] & (ks < n_in)[None, :], other=0.0)
            sums = tl.dot(x_low.to(OPERAND), tl.trans(low.to(OPERAND)), sums, input_precision="ieee")
            sums = tl.dot(x_high.to(OPERAND), tl.trans(high.to(OPERAND)), sums, input_precision="ieee")
    else:
        inside = (columns < n_out)[None, :]
        there = values + columns[None, :] * n_in
        for first in range(0, n_in, BK):
            ks = first + tl.arange(0, BK)
            weight = tl.load(there + ks[:, None], mask=inside & (ks < n_in)[:, None], other=0)  # (BK, BN)
            rows = tl.load(here + ks[None, :], mask=is_row[:, None] & (ks < n_in)[None, :], other=0.0)  # (BM, BK)
            sums = tl.dot(rows.to(OPERAND), _valued(weight, ELEMENT).to(OPERAND), sums, input_precision="ieee")
        if ELEMENT == 8:
            sums *= tl.load(scales + columns, mask=columns < n_out, other=0.0)[None, :]
    return sums


@triton.jit(do_not_specialize=["n_rows", "n_chosen"])
def multiply_rows(
    x, table, scale_table, order, starts, residual, out,
    n_rows, n_out, n_in, x_stride, n_chosen,
    ELEMENT: tl.constexpr, N_MATRICES: tl.constexpr, HAS_EXPERTS: tl.constexpr, X_PER_PAIR: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Rows, through one matrix, or each through the experts that it chose; an expert's matrix is read for all of its
    rows together.

    Pair i is row i // n_chosen with one of its experts; order: the pairs by expert; starts: where each one's begin, and
    the end. X_PER_PAIR: x[i] and out[order[i]] are of the i-th in that order; else x has the rows and out[i] is of the
    i-th in order. residual: added after rounding, for one matrix.
    """
    columns = tl.program_id(0) * BN + tl.arange(0, BN)
    expert = tl.program_id(1)
    begin, end = 0, n_rows
    if HAS_EXPERTS:
        begin = tl.load(starts + expert)
        end = tl.load(starts + expert + 1)
    if begin < end:
        values = _matrix(table, expert, ELEMENT)
        scales = values if ELEMENT == 16 else _scales(scale_table, expert, ELEMENT)
        for first in range(begin, end, BM):
            nths = first + tl.arange(0, BM)
            is_row = nths < end
            x_rows, out_rows = nths, nths
            if HAS_EXPERTS:
                pairs = tl.load(order + nths, mask=is_row, other=0)
                if X_PER_PAIR:
                    out_rows = pairs
                else:
                    x_rows = pairs // n_chosen
            sums = _tile_sums(values, scales, x, x_rows, is_row, columns, n_out, n_in, x_stride, ELEMENT, BM, BN, BK)
            if N_MATRICES == 2:
                next_values, next_scales = _second(values, scales, n_out, n_in, ELEMENT)
                other = _tile_sums(
                    next_values, next_scales, x, x_rows, is_row, columns, n_out, n_in, x_stride, ELEMENT, BM, BN, BK
                )
                sums = sums / (1 + tl.exp(-sums)) * other
            at = out_rows[:, None] * n_out + columns[None, :]
            mask = is_row[:, None] & (columns < n_out)[None, :]
            rounded = sums.to(tl.bfloat16)
            if HAS_RESIDUAL:
                before = tl.load(residual + at, mask=mask, other=0.0).to(tl.float32)
                rounded = (before + rounded.to(tl.float32)).to(tl.bfloat16)
            tl.store(out + at, rounded, mask=mask)
