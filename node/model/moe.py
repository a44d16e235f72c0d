"""The sparse mixture of experts: a router picks the k best experts of each row and mixes what they answer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from node.model.feed_forward import FeedForward
from node.model.ops import Linear


class MoE:
    """x (T, D) -> the routed mixture (T, D).

    Each expert is called once for all rows that chose it. A row's experts are summed in fp32, by ascending expert index
    whatever the batch, so that they add up the same way in prefill and in decode.
    Source: Jiang et al. 2024 (Mixtral), section 2.1.
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
        """x (T, D) -> weights (T, k) fp32 that add up to 1 per row, and the experts chosen (T, k), ascending."""
        logits, chosen = self.gate(x).topk(self.n_experts_per_tok)
        chosen, order = chosen.sort(-1)
        return F.softmax(logits, dim=-1, dtype=torch.float32).gather(-1, order), chosen

    def _mix_rows(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        n_rows, k = chosen.shape
        flat = chosen.flatten()  # (T * k): of row i // k
        order = flat.argsort(stable=True)  # rows by expert
        counts = torch.bincount(flat, minlength=len(self.experts)).tolist()
        gathered = x[order.div(k, rounding_mode="floor")].split(counts)
        answers = torch.cat([expert(rows) for expert, rows in zip(self.experts, gathered, strict=True) if len(rows)])
        back = torch.empty_like(order)
        back[order] = torch.arange(n_rows * k, device=x.device)
        by_row = answers[back].view(n_rows, k, -1)  # (T, k, D), ascending experts
        mixed = by_row[:, 0] * weights[:, :1]  # fp32
        for nth in range(1, k):
            mixed += by_row[:, nth] * weights[:, nth, None]
        return mixed

    def _mix_one_row(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        # Decoding alone: no gather and no scatter, only the k experts and k additions.
        mixed = None
        for nth, expert_idx in enumerate(chosen[0].tolist()):
            answer = self.experts[expert_idx](x) * weights[:, nth, None]  # fp32
            mixed = answer if mixed is None else mixed.add_(answer)
        assert mixed is not None
        return mixed
