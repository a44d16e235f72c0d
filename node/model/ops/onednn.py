"""Products with weights in oneDNN's own order, on CPUs.

F.linear has the weight reordered at every call (bf16, where the CPU's order is not the stored one) or runs MKL, which
is slow beyond one row on some CPUs (fp32). The order is made once and serves every number of rows.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from node.model.ops.multiply import Multiply

_linear = torch.ops.mkldnn._linear_pointwise.default
_linear_binary = torch.ops.mkldnn._linear_pointwise.binary

_HEAD_RATIO = 8
"""A matrix this much taller than wide is a model's head, which hardly ever sees more than one row at a time."""


class Packed:
    """weight (out, in), fp32 or bf16."""

    __slots__ = ("_weight",)

    def __init__(self, weight: Tensor) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight)

    def __call__(self, x: Tensor) -> Tensor:
        return _linear(x, self._weight, None, "none", [], "")

    def silu(self, x: Tensor) -> Tensor:
        return _linear(x, self._weight, None, "swish", [], "")

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        return _linear_binary(x, other, self._weight, None, "mul")


def pack_fp32(weight: Tensor) -> Multiply:
    """The faster of two ways for an fp32 weight of this form."""
    return _Transposed(weight) if weight.shape[0] >= _HEAD_RATIO * weight.shape[1] else Packed(weight)


class _Transposed:
    # MKL multiplies a row by an (in, out) matrix up to three times as fast as by an (out, in) one.
    __slots__ = ("_columns",)

    def __init__(self, weight: Tensor) -> None:
        self._columns = weight.t().contiguous()

    def __call__(self, x: Tensor) -> Tensor:
        return torch.mm(x, self._columns)

    def silu(self, x: Tensor) -> Tensor:
        return F.silu(self(x), inplace=True)

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        return self(x).mul_(other)
