"""One matrix, and the kernel that multiplies by it: the seam where faster or quantised kernels go in.

The weight is put into its kernel's own layout once, when it is loaded. One row must run near the speed at which memory
is read, for that is decoding; what many rows cost is about the same in each layout.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Multiply = Callable[[Tensor], Tensor]

_MIN_PACKED_VALUES = 1 << 14
"""A router is cheaper through F.linear than through the fixed cost of a packed call."""


class Linear:
    """x (T, in) -> x @ weight.T (T, out), in x's dtype, which is the weight's. weight: (out, in); it is not kept."""

    __slots__ = ("_multiply",)

    def __init__(self, weight: Tensor) -> None:
        self._multiply = _pack(weight)

    def __call__(self, x: Tensor) -> Tensor:
        return self._multiply(x)


def _pack(weight: Tensor) -> Multiply:
    if weight.device.type != "cpu" or weight.numel() < _MIN_PACKED_VALUES:
        return _plain(weight)
    if weight.dtype == torch.float32:
        return _transposed(weight)
    if weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return _packed_bf16(weight)
    return _plain(weight)


def _plain(weight: Tensor) -> Multiply:
    return lambda x: F.linear(x, weight)


def _transposed(weight: Tensor) -> Multiply:
    # MKL's product of a row with an (out, in) matrix runs at a third of the speed of one with an (in, out) matrix.
    columns = weight.t().contiguous()
    return lambda x: torch.mm(x, columns)


def _packed_bf16(weight: Tensor) -> Multiply:
    # oneDNN reorders the weight for each F.linear; done once, a row takes half the time, with the same bits.
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)
    linear = torch.ops.mkldnn._linear_pointwise.default
    return lambda x: linear(x, packed, None, "none", [], "")
