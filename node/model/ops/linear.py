"""One matrix, or the two of a gate, and the kernel that multiplies by it.

One row must run near the speed at which memory is read, for that is decoding; what many rows cost is about the same in
each layout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from node.model.ops import exact, gpu, int4, int8, native, onednn, plain
from node.model.ops.multiply import Multiply, Pair, Product
from node.model.ops.numerics import Numerics

if TYPE_CHECKING:
    from node.model.ops.gpu.products import Matrix

_MIN_PACKED_VALUES = 1 << 14
"""A small router is cheaper through F.linear than through the fixed cost of a library's packed call (about 14 us)."""


class Linear:
    """x (T, in) -> x @ weight.T (T, out), in x's dtype, which is numerics.dtype. weight: (out, in); it is not kept.

    own: our own kernel's form of it, None where a library multiplies.
    """

    __slots__ = ("_product", "own")

    def __init__(self, weight: Tensor, numerics: Numerics) -> None:
        self.own = _room(weight, 1, numerics)
        if self.own is None:
            self._product: Product = pack(weight, numerics)
        else:
            self._product = self.own
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
        self.own = _room(w1, 2, numerics)
        if self.own is None:
            first = pack(w1, numerics)
            del w1
            self._product: Product = Pair(first, pack(next(coming), numerics))
        else:
            self._product = self.own
            self.own.take(w1, 0)
            del w1
            self.own.take(next(coming), 1)

    def __call__(self, x: Tensor) -> Tensor:
        return self._product(x)


def kernels(device: torch.device) -> str:
    """What multiplies bf16 and int8 matrices on this device, in words."""
    if gpu.why_absent(device) is None:
        return "this project's own, for GPUs"
    if device.type == "cuda":
        return f"torch's, because {gpu.why_absent(device)}"
    absent = native.why_absent() if device.type == "cpu" else f"the device is {device.type}"
    return "this project's own, for AMX" if absent is None else f"torch's, because {absent}"


_OWN: Mapping[str, type[native.Bf16] | type[native.Int8]] = {"": native.Bf16, "int8": native.Int8}
_QUANTISED: Mapping[str, Callable[[Tensor], Multiply]] = {"int8": int8.Int8, "int4": int4.Int4}


def _room(weight: Tensor, n_matrices: int, numerics: Numerics) -> native.Own | Matrix | None:
    """For so many matrices like this one, in our own kernels' form, where this machine has some for it."""
    if weight.dtype != torch.bfloat16:
        return None
    if gpu.why_absent(weight.device) is None:
        if not gpu.fits(weight.shape) and not numerics.quantisation:
            return None
        return gpu.room(weight.shape, n_matrices, numerics.quantisation, weight.device)
    own = _OWN.get(numerics.quantisation)
    if weight.device.type != "cpu" or own is None or native.why_absent() is not None:
        return None
    return own(weight.shape, n_matrices)


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
