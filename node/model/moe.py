"""The sparse mixture of experts: a router picks the k best experts of each row and mixes what they answer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from node.model.feed_forward import FeedForward
from node.model.linear import Linear


class MoE:
    """x (T, D) -> the routed mixture (T, D).

    Rows are summed in fp32, by ascending expert index whatever the chunk, so that a row's experts add up the same way
    in prefill and in decode. Source: Jiang et al. 2024 (Mixtral), section 2.1.
    """

    __slots__ = ("experts", "gate", "n_experts_per_tok")

    def __init__(self, gate: Linear, experts: Sequence[FeedForward], n_experts_per_tok: int) -> None:
        self.gate = gate
        self.experts = experts
        self.n_experts_per_tok = n_experts_per_tok

    def __call__(self, x: Tensor) -> Tensor:
        weights, chosen = self.route(x)
        mix = self._mix_one_row if x.shape[0] == 1 else self._mix_rows
        return mix(x, weights, chosen).to(x.dtype)

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (T, D) -> weights (T, k) fp32 that add up to 1 per row, and the experts chosen (T, k)."""
        logits, chosen = self.gate(x).topk(self.n_experts_per_tok)
        return F.softmax(logits, dim=-1, dtype=torch.float32), chosen

    def _mix_rows(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        mixed = torch.zeros(x.shape, dtype=torch.float32, device=x.device)
        for expert_idx, expert in enumerate(self.experts):
            rows, nth = torch.where(chosen == expert_idx)
            if rows.shape[0]:
                mixed.index_add_(0, rows, expert(x[rows]) * weights[rows, nth, None])
        return mixed

    def _mix_one_row(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        # Decoding: no gather and no scatter, only the k experts and k additions.
        ranked = sorted(zip(chosen[0].tolist(), weights[0].tolist(), strict=True))
        mixed = torch.zeros(x.shape, dtype=torch.float32, device=x.device)
        for expert_idx, weight in ranked:
            mixed.add_(self.experts[expert_idx](x), alpha=weight)
        return mixed
