"""What every kernel is to its caller."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Multiply(Protocol):
    """x (T, in) -> (T, out), both in the dtype of the hidden state: a library's kernel, which knows one matrix."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def silu(self, x: Tensor) -> Tensor:
        """silu of the product, in the same pass where the kernel can."""

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        """The product times other (T, out), value by value, in the same pass where the kernel can."""


class Product(Protocol):
    """x (T, in) -> (T, out), both in the dtype of the hidden state: of one matrix, or of a gate's two."""

    def __call__(self, x: Tensor) -> Tensor: ...


class Pair:
    """w1, w3 by themselves -> silu(w1 x) * w3 x, in two passes."""

    __slots__ = ("_w1", "_w3")

    def __init__(self, w1: Multiply, w3: Multiply) -> None:
        self._w1 = w1
        self._w3 = w3

    def __call__(self, x: Tensor) -> Tensor:
        return self._w3.times(x, self._w1.silu(x))
