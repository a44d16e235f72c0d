"""Golden values: a change here changes every seeded generation, so it is a change of the public behaviour."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.messages import TopLogits
from swarm.sampling import SamplingParams, sample
from swarm.sampling.exact_math import exact_exp, exact_log, uniforms

ROW = TopLogits(tuple(range(100, 116)), tuple(1.5 - 0.25 * i for i in range(16)), 3.0)


def test_golden_draws() -> None:
    params = SamplingParams(temperature=0.9)
    assert [sample(ROW, params, position, 42).id for position in range(24)] == GOLDEN_BY_POSITION
    assert [sample(ROW, params, 17, seed).id for seed in (-(2**63), -1, 0, 1, 2**63 - 1)] == GOLDEN_BY_SEED


def test_golden_bits() -> None:
    noise = uniforms(42, 7, np.array([0, 1, 31999, 131071], dtype=np.uint64))
    assert [float(u).hex() for u in noise] == GOLDEN_NOISE
    assert [float(x).hex() for x in exact_log(noise)] == GOLDEN_LOG
    assert [float(x).hex() for x in exact_exp(np.array([0.0, -1e-9, -0.5, -1.0, -33.3, -699.0]))] == GOLDEN_EXP


def test_a_draw_depends_on_nothing_but_its_arguments() -> None:
    params = SamplingParams(temperature=1.0)
    forwards = [sample(ROW, params, position, 1) for position in range(50)]
    backwards = [sample(ROW, params, position, 1) for position in reversed(range(50))]
    assert forwards == backwards[::-1]
    assert len({s.id for s in forwards}) > 5


@given(st.floats(-699.0, 0.0))
def test_exp_is_accurate(x: float) -> None:
    actual, expected = float(exact_exp(np.array([x]))[0]), math.exp(x)
    assert abs(actual - expected) <= 2 * math.ulp(expected)


@given(st.floats(2.0**-60, 1.0))
def test_log_is_accurate(x: float) -> None:
    actual, expected = float(exact_log(np.array([x]))[0]), math.log(x)
    assert abs(actual - expected) <= max(4 * math.ulp(expected), 1e-18)


def test_exp_ends_at_zero() -> None:
    assert exact_exp(np.array([-700.0, -1e300, -np.inf])).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("vary", ["position", "seed", "id"])
def test_noise_is_uniform_and_unrelated_along_each_key(vary: str) -> None:
    n = 4096
    if vary == "id":
        noise = uniforms(3, 5, np.arange(n, dtype=np.uint64))
    else:
        keys = [(3, i) if vary == "position" else (i, 5) for i in range(n)]
        noise = np.array([uniforms(seed, position, np.array([9], dtype=np.uint64))[0] for seed, position in keys])
    assert ((noise > 0.0) & (noise < 1.0)).all()
    counts = np.histogram(noise, bins=64, range=(0.0, 1.0))[0]
    assert ((counts - 64) ** 2 / 64).sum() < 110.0  # chi-square, 63 degrees of freedom: passed by chance 2 in 10,000
    assert abs(np.corrcoef(noise[:-1], noise[1:])[0, 1]) < 4 / math.sqrt(n)


GOLDEN_BY_POSITION = [
    100,
    104,
    101,
    108,
    103,
    101,
    104,
    105,
    100,
    105,
    103,
    100,
    100,
    101,
    106,
    103,
    102,
    100,
    101,
    104,
    100,
    100,
    100,
    100,
]
GOLDEN_BY_SEED = [100, 100, 100, 102, 104]
GOLDEN_NOISE = ["0x1.e87a10cae49e6p-1", "0x1.c24ce8d46448ap-1", "0x1.9fbcd4fa19946p-1", "0x1.35db7bc1dfd24p-4"]
GOLDEN_LOG = ["-0x1.814a8780bed68p-5", "-0x1.06fba3329b3cbp-3", "-0x1.aa899ae96e0fdp-3", "-0x1.4a73a45953f4fp+1"]
GOLDEN_EXP = [
    "0x1.0000000000000p+0",
    "0x1.fffffff768fa1p-1",
    "0x1.368b2fc6f960ap-1",
    "0x1.78b56362cef38p-2",
    "0x1.f165bb9b59d94p-49",
    "0x1.78694fe9f73ccp-1009",
]
