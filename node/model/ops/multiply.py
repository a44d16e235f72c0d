"""What every kernel is to its caller."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Multiply(Protocol):
    """x (T, in) -> (T, out), both in the dtype of the hidden state."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def silu(self, x: Tensor) -> Tensor:
        """silu of the product, in the same pass where the kernel can."""

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        """The product times other (T, out), value by value, in the same pass where the kernel can."""
