"""The part of a row of logits that a client needs in order to sample."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from node.model import greatest_logits, why_no_gpu_kernels
from swarm.messages import TopLogits


def top_logits(logits: Tensor, n_top: int) -> tuple[TopLogits, ...]:
    """fp32 (T, vocab) -> for each row the n_top largest, largest first, equal ones by id, and the log-sum-exp of all.

    Two rows of equal logits give equal answers on any device: torch.topk alone leaves the order of ties open. On a CPU
    the answer has the same bits whatever rows stand beside it, on any number of threads.
    """
    n_top = min(n_top, logits.shape[-1])
    if logits.device.type == "cuda":
        return best_on_device(logits, n_top)
    best = logits.amax(-1, keepdim=True)  # (T, 1)
    # log_softmax goes over a row in one order; a plain sum of one long row is shared out among the threads.
    log_sum_exps = (best[:, 0] - logits.log_softmax(-1).amax(-1)).tolist()
    rows = logits.cpu().numpy()
    if n_top == 1:  # greedy: numpy's argmax is the first maximum, and takes a twentieth of torch's time
        ids = rows.argmax(-1).tolist()
        return tuple(
            TopLogits((i,), (v,), lse) for i, v, lse in zip(ids, best[:, 0].tolist(), log_sum_exps, strict=True)
        )
    least = logits.topk(n_top, dim=-1, sorted=False).values.amin(-1).tolist()  # (T,)
    return tuple(_top(row, n_top, at_least, lse) for row, at_least, lse in zip(rows, least, log_sum_exps, strict=True))


def best_on_device(logits: Tensor, n_top: int) -> tuple[TopLogits, ...]:
    """top_logits, found where the logits are: only what is asked for is transferred."""
    if n_top == 1 and why_no_gpu_kernels(logits.device) is None:
        return tuple(TopLogits((int(i),), (best,), lse) for best, i, lse in greatest_logits(logits).tolist())
    n_more = min(n_top + 1, logits.shape[-1])
    best, ids = logits.topk(n_more)
    log_sum_exps = logits.logsumexp(-1, keepdim=True)
    told = torch.cat((best.double(), ids.double(), log_sum_exps.double()), -1)  # fp64 holds ids and logits exactly
    rows = []
    for nth, row in enumerate(told.tolist()):
        values, of, lse = row[:n_more], row[n_more:-1], row[-1]
        if n_more > n_top and values[n_top - 1] == values[n_top]:  # which of the equal ones topk took is left open
            rows.append(_top(logits[nth].cpu().numpy(), n_top, values[n_top], lse))
            continue
        order = sorted(range(n_top), key=lambda i: (-values[i], of[i]))
        rows.append(TopLogits(tuple(int(of[i]) for i in order), tuple(values[i] for i in order), lse))
    return tuple(rows)


def allowed_ids(mask: bytes, vocab_size: int) -> NDArray[np.int64]:
    """The ids in [0, vocab_size) whose bit is set, ascending; bits are the lowest of a byte first."""
    bits = np.unpackbits(np.frombuffer(mask, np.uint8), bitorder="little")
    return np.flatnonzero(bits[:vocab_size])


def top_allowed_logits(logits: Tensor, n_top: int, ids: NDArray[np.int64]) -> tuple[TopLogits, ...]:
    """As top_logits, as if the vocabulary were these ids (ascending, at least one): the log-sum-exp is of them too."""
    rows = top_logits(logits.index_select(-1, torch.from_numpy(ids).to(logits.device)), n_top)
    return tuple(TopLogits(tuple(ids[list(row.ids)].tolist()), row.logits, row.log_sum_exp) for row in rows)


def _top(row: NDArray[np.float32], n_top: int, at_least: float, log_sum_exp: float) -> TopLogits:
    candidates = np.flatnonzero(row >= at_least)  # ascending ids: at least n_top, more when the last one ties
    values = row[candidates]
    order = np.argsort(-values, kind="stable")[:n_top]
    return TopLogits(tuple(candidates[order].tolist()), tuple(values[order].tolist()), log_sum_exp)
