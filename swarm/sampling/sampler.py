"""One row of top logits -> one token."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swarm.errors import RemoteProtocolError
from swarm.messages import TopLogits
from swarm.sampling.exact_math import FloatArray, exact_exp, exact_log, uniforms
from swarm.sampling.params import SamplingParams

_MAX_VOCAB_SIZE = 2**32  # what the wire can name

_LOG_SUM_EXP_SLACK = 1e-3
"""How far below the largest logit a stage's log_sum_exp may lie, relative to it: fp32 rounding stays under 1e-6."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """A token and what the model thought of it. Logprobs are the model's own: before temperature and filters, but
    where the step allowed some ids only, among those.

    top: the `params.logprobs` likeliest tokens as (id, logprob), likeliest first; empty when none was asked for.
    """

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...]


def sample(
    row: TopLogits,
    params: SamplingParams,
    position: int,
    seed: int,
    *,
    vocab_size: int = _MAX_VOCAB_SIZE,
    allowed: bytes = b"",
) -> Sampled:
    """Draw the token for one row: greedy at temperature 0 (ties: the smaller id), else by the filtered distribution.

    allowed: the mask that the row was asked for with (see Step); empty for all ids.
    position: tokens of the sequence before the drawn one (Result.position of a decode step). The noise of a candidate
    is keyed by (seed, position, id), so a replay draws the same tokens, and a slightly different row (another stage's
    rounding, another n_top) moves the draw no more often than it must: each candidate keeps its own noise.
    Only the row's candidates can be drawn; where the stage sent fewer than the whole vocabulary, filters and
    probabilities are relative to the part that was sent.
    Raises: RemoteProtocolError if the row breaks TopLogits' promises, or names an id outside of [0, vocab_size) or
    one that is not allowed.
    Source: exponential race (equal to Gumbel-max): argmin E_i / p_i over E_i ~ Exp(1).
    """
    ids, logits = _checked(row, vocab_size)
    if allowed:
        _check_allowed(ids, allowed)
    if params.is_greedy:
        chosen = int(ids[logits == logits[0]].min())
    else:
        kept_ids, probs = _filtered(ids, logits, params)
        waiting = -exact_log(uniforms(seed, position, kept_ids.astype(np.uint64)))
        chosen = int(kept_ids[np.argmin(waiting / probs)])
    n_reported = min(params.logprobs or 0, len(row.ids))
    top = tuple((row.ids[i], _logprob(row, i)) for i in range(n_reported))
    return Sampled(chosen, _logprob(row, row.ids.index(chosen)), top)


def candidates(row: TopLogits, params: SamplingParams) -> tuple[tuple[int, float], ...]:
    """The distribution that `sample` draws from: (id, probability) in the row's order, probabilities summing to 1.

    Raises: RemoteProtocolError if the row breaks TopLogits' promises.
    """
    ids, logits = _checked(row, _MAX_VOCAB_SIZE)
    if params.is_greedy:
        return ((int(ids[logits == logits[0]].min()), 1.0),)
    kept_ids, probs = _filtered(ids, logits, params)
    shares = probs / np.cumsum(probs)[-1]
    return tuple(zip(kept_ids.tolist(), shares.tolist(), strict=True))


def _logprob(row: TopLogits, idx: int) -> float:
    return min(0.0, row.logits[idx] - row.log_sum_exp)  # above 0 only by the stage's fp32 rounding


def _checked(row: TopLogits, vocab_size: int) -> tuple[NDArray[np.int64], FloatArray]:
    """The row as arrays (N,), N >= 1: finite, largest first, ids distinct and in [0, vocab_size)."""
    if not row.ids or len(row.ids) != len(row.logits):
        raise RemoteProtocolError(f"a stage sent {len(row.ids)} token ids with {len(row.logits)} logits; it is faulty")
    ids, logits = np.array(row.ids, dtype=np.int64), np.array(row.logits, dtype=np.float64)
    if not np.isfinite(logits).all() or not np.isfinite(row.log_sum_exp):
        raise RemoteProtocolError("a stage sent logits that are not finite; its weights or its arithmetic are broken")
    if (logits[1:] > logits[:-1]).any():
        raise RemoteProtocolError("a stage sent its largest logits out of order; it is faulty")
    if ids.min() < 0 or ids.max() >= vocab_size or len(set(row.ids)) != len(row.ids):
        raise RemoteProtocolError("a stage sent token ids twice, or outside of the vocabulary; it is faulty")
    if row.log_sum_exp < logits[0] - _LOG_SUM_EXP_SLACK * (1.0 + abs(logits[0])):
        raise RemoteProtocolError(f"a stage sent a log-sum-exp of {row.log_sum_exp} below its own largest logit")
    return ids, logits


def _check_allowed(ids: NDArray[np.int64], allowed: bytes) -> None:
    mask = np.frombuffer(allowed, np.uint8)
    if ids.max() >= 8 * len(mask) or not (mask[ids >> 3] >> (ids & 7) & 1).all():
        raise RemoteProtocolError(
            "a stage sent token ids that the step did not allow; it is faulty, or of an old version"
        )


def _filtered(
    ids: NDArray[np.int64], logits: FloatArray, params: SamplingParams
) -> tuple[NDArray[np.int64], FloatArray]:
    """The candidates that survive temperature, top_k, top_p and min_p, and their unnormalised probabilities > 0."""
    if params.top_k:
        ids, logits = ids[: params.top_k], logits[: params.top_k]
    with np.errstate(over="ignore"):  # a temperature near 0 sends all but the likeliest to -inf, as it should
        tempered = (logits - logits[0]) / params.temperature
    probs = exact_exp(tempered)  # the first is 1.0
    n_kept = int((probs > 0.0).sum())
    if params.top_p < 1.0:
        mass = np.cumsum(probs[:n_kept])  # not sum(): its order, so its last bit, is the library's own affair
        n_kept = min(n_kept, int((mass < params.top_p * mass[-1]).sum()) + 1)
    if params.min_p > 0.0:
        n_kept = min(n_kept, int((probs >= params.min_p).sum()))
    return ids[:n_kept], probs[:n_kept]
