"""exp, log and uniform noise from IEEE-754's exactly rounded operations only: every machine gets the same bits.

A library's exp differs in the last place between C libraries and between instruction sets, and a sum of floats depends
on its order; here nothing does. Knows nothing of tokens.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

_LN2_HIGH = float.fromhex("0x1.62e42fee00000p-1")  # ln 2 split in two, so that k * _LN2_HIGH is exact for |k| < 2**20
_LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
_ONE_OVER_LN2 = float.fromhex("0x1.71547652b82fep+0")
_EXP_TERMS = tuple(1.0 / math.factorial(n) for n in range(13, -1, -1))  # Taylor: |r| <= ln2/2 leaves < 2**-54
_LOG_TERMS = tuple(1.0 / n for n in range(23, 0, -2))  # atanh series: |s| <= 0.172 leaves < 2**-60
_SQRT_HALF = float.fromhex("0x1.6a09e667f3bcdp-1")


def exact_exp(x: FloatArray) -> FloatArray:
    """exp(x) for x <= 0 within 2 units in the last place, 0.0 below -700; the same bits on every machine."""
    x = np.maximum(x, -700.0)
    k = np.rint(x * _ONE_OVER_LN2)
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    total = np.full_like(x, _EXP_TERMS[0])
    for term in _EXP_TERMS[1:]:
        total = total * r + term
    return np.where(x <= -700.0, 0.0, np.ldexp(total, k.astype(np.int32)))


def exact_log(x: FloatArray) -> FloatArray:
    """log(x) for normal x > 0 within 2 units in the last place (absolute 1e-16 near 1); the same bits everywhere."""
    mantissa, exponent = np.frexp(x)
    low = mantissa < _SQRT_HALF
    mantissa = np.where(low, mantissa * 2.0, mantissa)
    k = exponent - low
    s = (mantissa - 1.0) / (mantissa + 1.0)
    square = s * s
    total = np.full_like(x, _LOG_TERMS[0])
    for term in _LOG_TERMS[1:]:
        total = total * square + term
    return k * _LN2_HIGH + (2.0 * s * total + k * _LN2_LOW)


def uniforms(seed: int, position: int, ids: NDArray[np.uint64]) -> FloatArray:
    """One number in (0, 1) per id: a function of (seed, position, id) and of nothing else. Shapes: (N,) -> (N,).

    Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (SplitMix64), entered at an arbitrary
    index; its starting state is taken from SHA-256, so neighbouring seeds and positions are unrelated.
    """
    digest = hashlib.sha256(b"swarm-sampling-v1" + seed.to_bytes(8, "big", signed=True) + position.to_bytes(8, "big"))
    state = np.frombuffer(digest.digest()[:8], dtype=">u8").astype(np.uint64)
    z = state + (ids + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return ((z >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
