"""One matrix and the kernel that multiplies by it: the seam where packed or quantised kernels go in."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


class Linear:
    """x (T, in) -> x @ weight.T (T, out). weight: (out, in), in the dtype and on the device of x."""

    __slots__ = ("weight",)

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)
