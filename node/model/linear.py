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
"""A router is cheaper through F.linear than through the fixed cost of a packed call (about 14 us)."""

_HEAD_RATIO = 8
"""A matrix this much taller than wide is a model's head, which hardly ever sees more than one row at a time."""


class Linear:
    """x (T, in) -> x @ weight.T (T, out), in x's dtype, which is the weight's. weight: (out, in); it is not kept."""

    __slots__ = ("_multiply",)

    def __init__(self, weight: Tensor) -> None:
        self._multiply = _pack(weight)

    def __call__(self, x: Tensor) -> Tensor:
        return self._multiply(x)


def _pack(weight: Tensor) -> Multiply:
    if weight.device.type != "cpu" or weight.numel() < _MIN_PACKED_VALUES or not torch.backends.mkldnn.is_available():
        return _plain(weight)
    if weight.dtype == torch.float32:
        return _transposed(weight) if weight.shape[0] >= _HEAD_RATIO * weight.shape[1] else _packed(weight)
    if weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return _packed(weight)
    return _plain(weight)


def _plain(weight: Tensor) -> Multiply:
    return lambda x: F.linear(x, weight)


def _transposed(weight: Tensor) -> Multiply:
    # MKL multiplies a row by an (in, out) matrix up to three times as fast as by an (out, in) one.
    columns = weight.t().contiguous()
    return lambda x: torch.mm(x, columns)


def _packed(weight: Tensor) -> Multiply:
    # F.linear has the weight reordered at every call (bf16) or runs MKL, which is slow beyond one row (fp32). oneDNN's
    # own order, made once, serves every number of rows; in bf16 it gives F.linear's bits.
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)
    linear = torch.ops.mkldnn._linear_pointwise.default
    return lambda x: linear(x, packed, None, "none", [], "")
