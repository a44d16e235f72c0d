"""int8 products, on CPUs: each row and each output channel has a scale of its own, and what is summed are integers.

Whole numbers below 2^31 add up to the same in any order. So a row's bits depend on nothing that is computed beside it,
on no number of threads and no instruction set: not by measurement, as in exact.py, but by arithmetic. And a row much
larger than its neighbours costs them nothing.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from swarm.errors import BadArgument

_linear = torch.ops.onednn.qlinear_pointwise.default

_LEVELS = 127
_OFFSET = 128
"""Of unsigned rows, see _multiply."""

MAX_IN = 1 << 16
"""Unsigned rows of 255 times 127, 2^16 of them, are still below 2^31."""

_SLAB_VALUES = 1 << 18
"""Values of a weight that are quantised at a time: their fp32 form stays in a core's cache."""

_SLAB_VALUES_OF_A_GPU = 1 << 24
"""Enough to keep one busy; all of a large matrix would take a GB or more meanwhile, which it may not have."""


class Int8:
    """weight (out, in) bf16, in at most 2^16 -> a Multiply of bf16 rows. Raises: BadArgument where a CPU cannot."""

    __slots__ = ("_offsets", "_packed", "_scales")

    def __init__(self, weight: Tensor) -> None:
        require_int8()
        values, self._scales = quantise_channels(weight)
        self._packed = torch.ops.onednn.qlinear_prepack(values, None)
        self._offsets = torch.zeros(weight.shape[0], dtype=torch.int32)

    def __call__(self, x: Tensor) -> Tensor:
        rows, scales = quantise_rows(x)
        return _multiply(rows, self._packed, self._scales, self._offsets).mul_(scales)

    def silu(self, x: Tensor) -> Tensor:
        return F.silu(self(x), inplace=True)

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        return self(x).mul_(other)


def quantise_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """x (T, in) bf16 -> int8 (T, in) and scales (T, 1) bf16: x is about values * scales.

    A row that is not finite gets a scale that is not finite.
    """
    scales = x.abs().amax(1, keepdim=True).float().div_(_LEVELS).clamp_min_(torch.finfo(torch.bfloat16).tiny)
    # Rounded to bf16 a scale may be too small by 2^-9: 127.25 at most, and that rounds to 127.
    scales = scales.bfloat16()
    return x.float().div_(scales).round_().to(torch.int8).contiguous(), scales


def quantise_channels(weight: Tensor) -> tuple[Tensor, Tensor]:
    """weight (out, in) -> int8 (out, in) and scales fp32 (out): weight is about values * scales[:, None].

    Raises: BadArgument where sums over so many values would not fit.
    """
    if weight.shape[1] > MAX_IN:
        raise BadArgument(f"rows of {weight.shape[1]} values are too long for int8; leave --quantize away")
    values = torch.empty(weight.shape, dtype=torch.int8, device=weight.device)
    scales = torch.empty(weight.shape[0], device=weight.device)
    slab_values = _SLAB_VALUES if weight.device.type == "cpu" else _SLAB_VALUES_OF_A_GPU
    height = max(1, slab_values // weight.shape[1])
    for row in range(0, weight.shape[0], height):
        slab, of_slab = weight[row : row + height], scales[row : row + height]
        of_slab.copy_(slab.abs().amax(1)).div_(_LEVELS).clamp_min_(torch.finfo(torch.bfloat16).tiny)
        values[row : row + height] = slab.float().div_(of_slab[:, None]).round_()
    return values, scales


@cache
def require_int8() -> None:
    """Raises: BadArgument when large sums come out wrong, as where a CPU adds pairs of products in 16 bits."""
    n_in = 4096
    weight = torch.full((64, n_in), _LEVELS, dtype=torch.int8)
    weight[1::2] = -_LEVELS
    rows = torch.full((3, n_in), _LEVELS, dtype=torch.int8)
    rows[1] = -_LEVELS
    rows[2, ::2], rows[2, -1] = -_LEVELS, 1  # a small sum of large products
    packed = torch.ops.onednn.qlinear_prepack(weight, None)
    product = _multiply(rows, packed, torch.ones(64), torch.zeros(64, dtype=torch.int32), torch.float32)
    expected = rows.double() @ weight.double().T
    if not torch.equal(product, expected.float()):
        raise BadArgument("this CPU has no exact int8 products (VNNI or AMX); leave --quantize away, or take int4")


def _multiply(
    rows: Tensor, packed: Tensor, scales: Tensor, offsets: Tensor, dtype: torch.dtype = torch.bfloat16
) -> Tensor:
    """rows int8 (T, in) -> their sums times scales, (T, out)."""
    offset = 0
    if not _has_amx():
        # Without AMX oneDNN is fast for unsigned rows only; with it, what it takes off again for their offset is fp32.
        rows, offset = rows.view(torch.uint8).bitwise_xor(_OFFSET), _OFFSET
    return _linear(rows, 1.0, offset, packed, scales, offsets, None, 1.0, 0, dtype, "none", [], "")


@cache
def _has_amx() -> bool:
    return torch.cpu._is_amx_tile_supported()
