"""Our own kernels for GPUs, in Triton: products that read a weight once for all rows that meet in it, routed on the
device; attention over pages of the cache; and layers made of them, which ask the host nothing and so can be replayed.

The files named *_kernels.py are the maths; the others hand them tensors. Only this file and presence.py may be imported
where Triton is not installed. Each launch says enable_fp_fusion, for what it is if nothing is said changes between
Triton's versions, some of which warn of that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from node.model.ops.gpu.presence import why_absent

if TYPE_CHECKING:
    from node.model.ops.gpu.products import Matrix

__all__ = ["fits", "greatest_logits", "room", "why_absent"]

_MAX_VALUES = 1 << 31
"""Of a matrix: kernels count them in 32 bits."""


def fits(shape: torch.Size) -> bool:
    """Whether a matrix (out, in) is small enough for these kernels."""
    return shape.numel() < _MAX_VALUES


def room(shape: torch.Size, n_matrices: int, quantisation: str, device: torch.device) -> Matrix:
    """For a matrix (out, in), or the two of a gate, in the form that these kernels read."""
    from node.model.ops.gpu.products import Bf16, Int4, Int8

    return {"": Bf16, "int8": Int8, "int4": Int4}[quantisation](shape, n_matrices, device)


def greatest_logits(logits: Tensor) -> Tensor:
    """fp32 (T, vocab) -> fp32 (T, 3): the largest, the first id that has it (exact below 2^24), the log-sum-exp."""
    from node.model.ops.gpu.logits import greatest

    return greatest(logits)
