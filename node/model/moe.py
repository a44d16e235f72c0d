"""The sparse mixture of experts: a router picks the k best experts of each row and mixes what they answer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from node.model.experts import Answers, Elsewhere, Steps, finish
from node.model.feed_forward import FeedForward
from node.model.heat import RoutingHeat
from node.model.ops import Linear
from swarm.errors import LocalProtocolError


class MoE:
    """x (T, D) -> the routed mixture (T, D).

    Each expert is called once for all rows that chose it: those that are here, and, while they are at work, those that
    are elsewhere, all of them at once. A row's experts are summed in fp32, by ascending expert index whatever the batch
    and wherever they are, so that they add up the same way in prefill and in decode.
    Source: Jiang et al. 2024 (Mixtral), section 2.1.
    """

    __slots__ = ("elsewhere", "experts", "gate", "heat", "layer_idx", "n_experts", "n_experts_per_tok")

    def __init__(
        self,
        gate: Linear,
        experts: Mapping[int, FeedForward],
        n_experts: int,
        n_experts_per_tok: int,
        layer_idx: int = 0,
        elsewhere: Elsewhere | None = None,
        heat: RoutingHeat | None = None,
    ) -> None:
        self.gate = gate
        self.experts = experts
        self.n_experts = n_experts
        self.n_experts_per_tok = n_experts_per_tok
        self.layer_idx = layer_idx
        self.elsewhere = elsewhere
        self.heat = heat

    def __call__(self, x: Tensor) -> Tensor:
        return finish(self.steps(x))

    def steps(self, x: Tensor) -> Steps[Tensor]:
        """Raises, when driven: what kept an expert elsewhere from answering."""
        mixed = yield from self.mix(x, *self.route(x))
        return mixed

    def mix(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Steps[Tensor]:
        """x (T, D), and what route made of it -> (T, D). Raises as steps does."""
        mixing = self._mix_one_row if x.shape[0] == 1 else self._mix_rows
        mixed = yield from mixing(x, weights, chosen)
        return mixed.to(x.dtype)

    def route(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x (T, D) -> weights (T, k) fp32 that add up to 1 per row, and the experts chosen (T, k), ascending."""
        logits, chosen = self.gate(x).topk(self.n_experts_per_tok)
        chosen, order = chosen.sort(-1)
        return F.softmax(logits, dim=-1, dtype=torch.float32).gather(-1, order), chosen

    def _mix_rows(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Steps[Tensor]:
        n_rows, k = chosen.shape
        flat = chosen.flatten()  # (T * k): of row i // k
        order = flat.argsort(stable=True)  # rows by expert
        row_idxs = order.div(k, rounding_mode="floor")
        counts = torch.bincount(flat).tolist()
        gathered = dict(enumerate(x[row_idxs].split(counts)))
        routed = {expert_idx: n for expert_idx, n in enumerate(counts) if n}
        row_idxs_of = dict(enumerate(row_idxs.split(counts)))
        by_expert = yield from self._answers(
            x, routed, {e: gathered[e] for e in routed}, {e: row_idxs_of[e] for e in routed}
        )
        answers = torch.cat([by_expert[expert_idx] for expert_idx in routed])
        back = torch.empty_like(order)
        back[order] = torch.arange(n_rows * k, device=x.device)
        by_row = answers[back].view(n_rows, k, -1)  # (T, k, D), ascending experts
        mixed = by_row[:, 0] * weights[:, :1]  # fp32
        for nth in range(1, k):
            mixed += by_row[:, nth] * weights[:, nth, None]
        return mixed

    def _mix_one_row(self, x: Tensor, weights: Tensor, chosen: Tensor) -> Steps[Tensor]:
        # Decoding alone: no gather and no scatter, only the k experts and k additions.
        expert_idxs = chosen[0].tolist()
        only = torch.zeros(1, dtype=torch.long)
        answers = yield from self._answers(
            x, dict.fromkeys(expert_idxs, 1), dict.fromkeys(expert_idxs, x), dict.fromkeys(expert_idxs, only)
        )
        mixed = answers[expert_idxs[0]] * weights[:, :1]  # fp32
        for nth, expert_idx in enumerate(expert_idxs[1:], start=1):
            mixed.add_(answers[expert_idx] * weights[:, nth, None])
        return mixed

    @property
    def is_whole(self) -> bool:
        """Every expert is here."""
        return len(self.experts) == self.n_experts

    def count(self, n_rows: int, routed: Mapping[int, int]) -> None:
        """Note how many of n_rows went to each of these experts."""
        if self.heat is not None:
            self.heat.count(self.layer_idx, n_rows, routed.items())

    def _answers(
        self, x: Tensor, routed: Mapping[int, int], rows: Mapping[int, Tensor], row_idxs: Mapping[int, Tensor]
    ) -> Steps[Answers]:
        """Of every expert that was routed to (ascending, how many rows each); rows, row_idxs: which those are."""
        self.count(x.shape[0], routed)
        here = {expert_idx: self.experts[expert_idx] for expert_idx in routed if expert_idx in self.experts}
        if len(here) == len(routed):
            return {expert_idx: expert(rows[expert_idx]) for expert_idx, expert in here.items()}
        if self.elsewhere is None:
            lacking = next(expert_idx for expert_idx in routed if expert_idx not in here)
            raise LocalProtocolError(f"expert {lacking} of layer {self.layer_idx} is not loaded")
        wanted = {expert_idx: row_idxs[expert_idx].tolist() for expert_idx in routed if expert_idx not in here}
        away = self.elsewhere.apply(self.layer_idx, x, wanted)
        answers = {expert_idx: expert(rows[expert_idx]) for expert_idx, expert in here.items()}
        yield away
        return {**answers, **away.result()}
