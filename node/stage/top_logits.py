"""The part of a row of logits that a client needs in order to sample."""

from __future__ import annotations

import torch
from torch import Tensor

from swarm.messages import TopLogits


def top_logits(logits: Tensor, n_top: int) -> tuple[TopLogits, ...]:
    """fp32 (T, vocab) -> for each row the n_top largest, largest first, equal ones by id, and the log-sum-exp of all.

    Two rows of equal logits give equal answers on any device: torch.topk alone leaves the order of ties open.
    """
    n_top = min(n_top, logits.shape[-1])
    log_sum_exps = torch.logsumexp(logits, dim=-1).tolist()
    if n_top == 1:  # greedy: argmax of the first maximum
        best = logits.max(dim=-1, keepdim=True).values  # (T, 1)
        ids = (logits == best).int().argmax(dim=-1).tolist()
        return tuple(
            TopLogits((i,), (v,), lse) for i, v, lse in zip(ids, best[:, 0].tolist(), log_sum_exps, strict=True)
        )
    least = logits.topk(n_top, dim=-1).values[:, -1]  # (T,)
    rows = []
    for row, threshold, log_sum_exp in zip(logits, least, log_sum_exps, strict=True):
        candidates = torch.nonzero(row >= threshold)[:, 0]  # ascending ids: at least n_top, more when the last one ties
        values, order = row[candidates].sort(descending=True, stable=True)
        ids = candidates[order[:n_top]].tolist()
        rows.append(TopLogits(tuple(ids), tuple(values[:n_top].tolist()), log_sum_exp))
    return tuple(rows)
