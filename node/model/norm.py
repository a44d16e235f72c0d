"""Root-mean-square normalisation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from node.model.ops import native


class RMSNorm:
    """x (T, D) -> weight * x / sqrt(mean(x^2) + eps), computed in fp32, in x's dtype.

    Source: Zhang & Sennrich 2019, without the mean's subtraction and without a bias.
    """

    __slots__ = ("eps", "shape", "weight")

    def __init__(self, weight: Tensor, eps: float) -> None:
        self.weight = weight  # (D,)
        self.shape = tuple(weight.shape)
        self.eps = eps

    def __call__(self, x: Tensor) -> Tensor:
        if x.dtype == torch.bfloat16 and x.device.type == "cpu" and native.why_absent() is None:
            return native.normalise(x, self.weight, self.eps)  # torch takes several passes, of a call each
        return F.rms_norm(x, self.shape, self.weight, self.eps)
