"""The part of a row of logits that a client needs in order to sample."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from swarm.messages import TopLogits


def top_logits(logits: Tensor, n_top: int) -> tuple[TopLogits, ...]:
    """fp32 (T, vocab) -> for each row the n_top largest, largest first, equal ones by id, and the log-sum-exp of all.

    Two rows of equal logits give equal answers on any device: torch.topk alone leaves the order of ties open.
    """
    n_top = min(n_top, logits.shape[-1])
    best = logits.amax(-1, keepdim=True)  # (T, 1)
    log_sum_exps = (logits - best).exp_().sum(-1).log_().add_(best[:, 0]).tolist()
    rows = logits.cpu().numpy()
    if n_top == 1:  # greedy: numpy's argmax is the first maximum, and takes a twentieth of torch's time
        ids = rows.argmax(-1).tolist()
        return tuple(
            TopLogits((i,), (v,), lse) for i, v, lse in zip(ids, best[:, 0].tolist(), log_sum_exps, strict=True)
        )
    least = logits.topk(n_top, dim=-1, sorted=False).values.amin(-1).tolist()  # (T,)
    return tuple(_top(row, n_top, at_least, lse) for row, at_least, lse in zip(rows, least, log_sum_exps, strict=True))


def _top(row: NDArray[np.float32], n_top: int, at_least: float, log_sum_exp: float) -> TopLogits:
    candidates = np.flatnonzero(row >= at_least)  # ascending ids: at least n_top, more when the last one ties
    values = row[candidates]
    order = np.argsort(-values, kind="stable")[:n_top]
    return TopLogits(tuple(candidates[order].tolist()), tuple(values[order].tolist()), log_sum_exp)
