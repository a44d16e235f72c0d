"""One matrix, or the two of a gate, and the kernel that multiplies by it.

One row must run near the speed at which memory is read, for that is decoding; what many rows cost is about the same in
each layout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from node.model.ops import exact, int4, int8, native, onednn, plain
from node.model.ops.multiply import Multiply, Pair, Product
from node.model.ops.numerics import Numerics

_MIN_PACKED_VALUES = 1 << 14
"""A small router is cheaper through F.linear than through the fixed cost of a library's packed call (about 14 us)."""


class Linear:
    """x (T, in) -> x @ weight.T (T, out), in x's dtype, which is numerics.dtype. weight: (out, in); it is not kept.

    own: our own kernel's form of it, None where a library multiplies.
    """

    __slots__ = ("_product", "own")

    def __init__(self, weight: Tensor, numerics: Numerics) -> None:
        self.own: native.Own | None = None
        if (own := _own(weight, numerics)) is None:
            self._product: Product = pack(weight, numerics)
        else:
            self._product = self.own = own(weight.shape)
            self.own.take(weight)

    def __call__(self, x: Tensor) -> Tensor:
        return self._product(x)


class Gate:
    """x (T, in) -> silu(x @ w1.T) * (x @ w3.T) (T, out), in x's dtype, which is numerics.dtype.

    weights: w1 and w3, each (out, in); each is asked for when the one before it is packed, and none is kept. own: as
    Linear's.
    """

    __slots__ = ("_product", "own")

    def __init__(self, weights: Iterable[Tensor], numerics: Numerics) -> None:
        coming = iter(weights)
        w1 = next(coming)
        self.own: native.Own | None = None
        if (own := _own(w1, numerics)) is None:
            first = pack(w1, numerics)
            del w1
            self._product: Product = Pair(first, pack(next(coming), numerics))
        else:
            self._product = self.own = own(w1.shape, 2)
            self.own.take(w1, 0)
            del w1
            self.own.take(next(coming), 1)

    def __call__(self, x: Tensor) -> Tensor:
        return self._product(x)


def kernels(device: torch.device) -> str:
    """What multiplies bf16 and int8 matrices on this device, in words."""
    absent = native.why_absent() if device.type == "cpu" else f"the device is {device.type}"
    return "this project's own, for AMX" if absent is None else f"torch's, because {absent}"


_OWN: Mapping[str, type[native.Bf16] | type[native.Int8]] = {"": native.Bf16, "int8": native.Int8}
_QUANTISED: Mapping[str, Callable[[Tensor], Multiply]] = {"int8": int8.Int8, "int4": int4.Int4}


def _own(weight: Tensor, numerics: Numerics) -> type[native.Bf16] | type[native.Int8] | None:
    """Our own kernel for a matrix like this, where this machine has one."""
    if weight.device.type != "cpu" or weight.dtype != torch.bfloat16:
        return None
    return _OWN.get(numerics.quantisation) if native.why_absent() is None else None


def pack(weight: Tensor, numerics: Numerics) -> Multiply:
    """weight (out, in) in the layout of the library's kernel that suits it."""
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
