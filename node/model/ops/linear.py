"""One matrix, and the kernel that multiplies by it.

One row must run near the speed at which memory is read, for that is decoding; what many rows cost is about the same in
each layout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from node.model.ops import exact, int4, int8, onednn, plain
from node.model.ops.multiply import Multiply
from node.model.ops.numerics import Numerics

_MIN_PACKED_VALUES = 1 << 14
"""A small router is cheaper through F.linear than through the fixed cost of a packed call (about 14 us)."""


class Linear:
    """x (T, in) -> x @ weight.T (T, out), in x's dtype, which is numerics.dtype. weight: (out, in); it is not kept."""

    __slots__ = ("_multiply",)

    def __init__(self, weight: Tensor, numerics: Numerics) -> None:
        self._multiply = pack(weight, numerics)

    def __call__(self, x: Tensor) -> Tensor:
        return self._multiply(x)

    def silu(self, x: Tensor) -> Tensor:
        """silu of the product."""
        return self._multiply.silu(x)

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        """The product times other (T, out), value by value."""
        return self._multiply.times(x, other)


_QUANTISED: Mapping[str, Callable[[Tensor], Multiply]] = {"int8": int8.Int8, "int4": int4.Int4}


def pack(weight: Tensor, numerics: Numerics) -> Multiply:
    """weight (out, in) in the layout of the kernel that suits it."""
    if numerics.quantisation:
        return _QUANTISED[numerics.quantisation](weight)
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return plain.Plain(weight)
    if numerics.is_exact:
        return exact.Exact(weight)
    if weight.numel() < _MIN_PACKED_VALUES:
        return plain.Plain(weight)
    if weight.dtype == torch.float32:
        return onednn.pack_fp32(weight)
    if weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return onednn.Packed(weight)
    return plain.Plain(weight)
