"""The largest of each row of logits, found where they are."""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from node.model.ops.gpu import row_kernels as kernels

_BLOCK = 8192


def greatest(logits: Tensor) -> Tensor:
    """fp32 (T, vocab) -> fp32 (T, 3): the largest, the first id that has it (exact below 2^24), the log-sum-exp."""
    logits = logits.contiguous()
    n_rows, vocab_size = logits.shape
    out = torch.empty(n_rows, 3, device=logits.device)
    block = min(_BLOCK, triton.next_power_of_2(vocab_size))
    kernels.greatest[(n_rows,)](logits, out, vocab_size, block, enable_fp_fusion=True, num_warps=16)
    return out
