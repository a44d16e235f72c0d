"""Sampling draws from the distribution that its parameters name, and draws the same token everywhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import RemoteProtocolError
from swarm.messages import TopLogits
from swarm.sampling import SamplingParams, candidates, sample

VOCAB_SIZE = 40


def make_logits(scale: float = 2.0, seed: int = 0, vocab_size: int = VOCAB_SIZE) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=vocab_size) * scale).astype(np.float32).astype(np.float64)


def make_row(logits: np.ndarray, n_top: int | None = None) -> TopLogits:
    order = np.lexsort((np.arange(len(logits)), -logits))[:n_top]
    log_sum_exp = float(np.logaddexp.reduce(logits))
    return TopLogits(tuple(order.tolist()), tuple(logits[order].tolist()), log_sum_exp)


def oracle(logits: np.ndarray, params: SamplingParams) -> np.ndarray:
    """The filtered distribution over the vocabulary, step by step and renormalised after each, in plain numpy."""

    def softmax(x: np.ndarray) -> np.ndarray:
        e = np.exp(x - x.max())
        return e / e.sum()

    scores = logits / params.temperature
    if params.top_k:
        scores = np.where(scores >= np.sort(scores)[::-1][min(params.top_k, len(scores)) - 1], scores, -np.inf)
    if params.top_p < 1.0:
        probs = softmax(scores)
        order = np.argsort(-probs, kind="stable")
        before = np.cumsum(probs[order]) - probs[order]
        scores[order[before >= params.top_p]] = -np.inf
    if params.min_p > 0.0:
        probs = softmax(scores)
        scores = np.where(probs >= params.min_p * probs.max(), scores, -np.inf)
    return softmax(scores)


FILTERS = [
    SamplingParams(temperature=1.0),
    SamplingParams(temperature=0.7),
    SamplingParams(temperature=1.6),
    SamplingParams(temperature=1.0, top_k=5),
    SamplingParams(temperature=1.0, top_p=0.8),
    SamplingParams(temperature=1.0, min_p=0.1),
    SamplingParams(temperature=1.3, top_k=20, top_p=0.9, min_p=0.02),
    SamplingParams(temperature=1.0, top_k=1),
    SamplingParams(temperature=1.0, top_p=1e-9),
]


@pytest.mark.parametrize("params", FILTERS, ids=str)
def test_draws_follow_the_filtered_softmax(params: SamplingParams) -> None:
    """Chi-square over 6,000 draws with fixed seeds: half vary the position, half the seed."""
    logits = make_logits()
    row, expected = make_row(logits), oracle(logits, params)
    n_draws = 6_000
    drawn = [sample(row, params, position, 7).id for position in range(n_draws // 2)]
    drawn += [sample(row, params, 3, seed).id for seed in range(n_draws // 2)]
    counts = np.bincount(drawn, minlength=VOCAB_SIZE)
    assert not counts[expected == 0.0].any(), "a token was drawn that the filters exclude"

    likely = expected * n_draws >= 5.0
    observed = np.append(counts[likely], counts[~likely].sum())
    wanted = np.append(expected[likely], expected[~likely].sum()) * n_draws
    observed, wanted = observed[wanted > 0.0], wanted[wanted > 0.0]
    chi_square, n_free = float(((observed - wanted) ** 2 / wanted).sum()), len(wanted) - 1
    # Wilson-Hilferty's cube-root normal: z = 3.5 is passed by chance twice in 10,000 runs; the seeds are fixed anyway.
    limit = n_free * (1 - 2 / (9 * max(n_free, 1)) + 3.5 * math.sqrt(2 / (9 * max(n_free, 1)))) ** 3
    assert chi_square <= max(limit, 1e-9)


@pytest.mark.parametrize("params", FILTERS, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_candidates_are_the_filtered_softmax(params: SamplingParams, seed: int) -> None:
    logits = make_logits(seed=seed)
    actual = np.zeros(VOCAB_SIZE)
    for token_id, share in candidates(make_row(logits), params):
        actual[token_id] = share
    np.testing.assert_allclose(actual, oracle(logits, params), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("n_top", [1, 3, 10])
def test_a_shorter_row_cuts_the_tail_as_top_k_would(n_top: int) -> None:
    logits = make_logits()
    short, full = make_row(logits, n_top), make_row(logits)
    params, as_top_k = SamplingParams(temperature=1.0), SamplingParams(temperature=1.0, top_k=n_top)
    assert candidates(short, params) == candidates(full, as_top_k)
    assert [sample(short, params, p, 0) for p in range(200)] == [sample(full, as_top_k, p, 0) for p in range(200)]


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**40), st.integers(0, 100))
def test_greedy_is_argmax_whatever_the_seed(seed: int, position: int, logits_seed: int) -> None:
    logits = make_logits(seed=logits_seed)
    assert sample(make_row(logits), SamplingParams(temperature=0.0), position, seed).id == int(logits.argmax())


def test_greedy_ties_go_to_the_smaller_id_in_whatever_order_they_came() -> None:
    greedy = SamplingParams(temperature=0.0)
    assert sample(TopLogits((3, 9, 1), (2.0, 2.0, 1.0), 3.0), greedy, 0, 0).id == 3
    assert sample(TopLogits((9, 3, 1), (2.0, 2.0, 1.0), 3.0), greedy, 0, 0).id == 3
    assert candidates(TopLogits((9, 3, 1), (2.0, 2.0, 1.0), 3.0), greedy) == ((3, 1.0),)


def test_a_very_low_temperature_is_greedy() -> None:
    logits = make_logits()
    for temperature in (1e-6, 5e-324):
        assert sample(make_row(logits), SamplingParams(temperature=temperature), 0, 0).id == int(logits.argmax())


def test_a_candidate_keeps_its_noise_when_others_come_or_go() -> None:
    """Whoever wins among all candidates still wins among fewer: draws differ only where the winner was cut."""
    logits = make_logits()
    full = SamplingParams(temperature=1.0)
    for params in (SamplingParams(temperature=1.0, top_k=8), SamplingParams(temperature=1.0, top_p=0.7)):
        kept = {token_id for token_id, _ in candidates(make_row(logits), params)}
        for position in range(300):
            winner = sample(make_row(logits), full, position, 5).id
            assert winner not in kept or sample(make_row(logits), params, position, 5).id == winner


def test_a_rounding_difference_hardly_ever_moves_a_draw() -> None:
    """Replay on a stage that rounds otherwise: logits 1e-3 apart give total variation ~1e-3, so as few moved draws."""
    logits = make_logits(seed=4)
    nudged = logits + np.random.default_rng(9).uniform(-1e-3, 1e-3, size=VOCAB_SIZE)
    params = SamplingParams(temperature=1.0)
    moved = sum(
        sample(make_row(logits), params, p, 1).id != sample(make_row(nudged), params, p, 1).id for p in range(4000)
    )
    assert moved <= 16


def test_logprobs_are_of_the_model_s_own_distribution() -> None:
    logits = make_logits()
    expected = logits - np.logaddexp.reduce(logits)
    params = SamplingParams(temperature=0.3, top_k=2, logprobs=5)
    sampled = sample(make_row(logits), params, 0, 0)
    assert sampled.logprob == pytest.approx(expected[sampled.id], abs=1e-12)
    assert [token_id for token_id, _ in sampled.top] == np.argsort(-logits)[:5].tolist()
    assert [logprob for _, logprob in sampled.top] == pytest.approx(np.sort(expected)[::-1][:5].tolist(), abs=1e-12)
    assert sample(make_row(logits), SamplingParams(logprobs=0), 0, 0).top == ()
    assert sample(make_row(logits), SamplingParams(), 0, 0).top == ()
    assert len(sample(make_row(logits, 3), SamplingParams(logprobs=5), 0, 0).top) == 3


def test_a_logprob_never_exceeds_zero() -> None:
    assert sample(TopLogits((0,), (12.0,), 11.999999), SamplingParams(), 0, 0).logprob == 0.0


BROKEN_ROWS = {
    "empty": TopLogits((), (), 0.0),
    "lengths differ": TopLogits((1, 2), (1.0,), 2.0),
    "nan": TopLogits((1, 2), (float("nan"), 1.0), 2.0),
    "infinite": TopLogits((1, 2), (float("inf"), 1.0), 2.0),
    "minus infinite": TopLogits((1, 2), (1.0, float("-inf")), 2.0),
    "log-sum-exp nan": TopLogits((1, 2), (1.0, 0.5), float("nan")),
    "log-sum-exp too small": TopLogits((1, 2), (1.0, 0.5), -1.0),
    "out of order": TopLogits((1, 2), (0.5, 1.0), 2.0),
    "negative id": TopLogits((-1, 2), (1.0, 0.5), 2.0),
    "huge id": TopLogits((2**32, 2), (1.0, 0.5), 2.0),
    "twice": TopLogits((2, 2), (1.0, 0.5), 2.0),
}


@pytest.mark.parametrize("row", BROKEN_ROWS.values(), ids=BROKEN_ROWS.keys())
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_broken_row_is_the_stage_s_fault(row: TopLogits, temperature: float) -> None:
    with pytest.raises(RemoteProtocolError, match="stage sent"):
        sample(row, SamplingParams(temperature=temperature), 0, 0)
    with pytest.raises(RemoteProtocolError, match="stage sent"):
        candidates(row, SamplingParams(temperature=temperature))


def test_an_id_that_the_model_does_not_have_is_the_stage_s_fault() -> None:
    row = TopLogits((7, 320), (1.0, 0.5), 2.0)
    assert sample(row, SamplingParams(temperature=0.0), 0, 0, vocab_size=321).id == 7
    with pytest.raises(RemoteProtocolError, match="outside of the vocabulary"):
        sample(row, SamplingParams(temperature=0.0), 0, 0, vocab_size=320)


@given(
    st.lists(st.tuples(st.integers(-5, 2**33), st.floats(width=32)), max_size=8),
    st.floats(width=32),
    st.floats(0.0, 100.0),
)
def test_any_row_gives_one_of_its_ids_or_a_protocol_error(
    pairs: list[tuple[int, float]], log_sum_exp: float, temperature: float
) -> None:
    row = TopLogits(tuple(i for i, _ in pairs), tuple(x for _, x in pairs), log_sum_exp)
    try:
        sampled = sample(row, SamplingParams(temperature=temperature, logprobs=2), 1, 2)
    except RemoteProtocolError:
        return
    assert sampled.id in row.ids
    assert math.isfinite(sampled.logprob)


def mask_of(ids: set[int], n_bytes: int) -> bytes:
    return bytes(sum(1 << bit for bit in range(8) if 8 * i + bit in ids) for i in range(n_bytes))


def test_a_row_is_of_the_ids_that_the_step_allowed() -> None:
    row, params = make_row(make_logits(), 6), SamplingParams(temperature=1.0)
    allowed = mask_of(set(row.ids), VOCAB_SIZE // 8)
    assert sample(row, params, 3, 7, allowed=allowed) == sample(row, params, 3, 7)
    for refused in (mask_of(set(row.ids[1:]), VOCAB_SIZE // 8), allowed[: max(row.ids) // 8]):
        with pytest.raises(RemoteProtocolError, match="did not allow"):
            sample(row, params, 3, 7, allowed=refused)
