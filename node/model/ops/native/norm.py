"""norm.c for tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from node.model.ops.native.library import library


def normalise(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x (T, D), weight (D), bf16 -> weight * x / sqrt(mean(x^2) + eps), (T, D). A row's bits are its own."""
    x, weight = x.contiguous(), weight.contiguous()
    out = torch.empty_like(x)
    n_rows, n_in = x.shape
    library().normalise(
        x.data_ptr(), weight.data_ptr(), eps, out.data_ptr(), n_rows, n_in, min(torch.get_num_threads(), n_rows)
    )
    return out
