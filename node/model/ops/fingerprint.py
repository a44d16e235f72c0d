"""What a machine computes, in a few digits that travel in the name of its profile."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
import torch.nn.functional as F

from node.model.ops import native
from node.model.ops.exact import sample
from node.model.ops.linear import Gate, Linear
from node.model.ops.numerics import Numerics
from swarm.pages import PAGE


def fingerprint(shapes: Iterable[tuple[int, int]], numerics: Numerics) -> str:
    """Six hex digits of what this machine computes for bf16 weights (out, in) of these shapes, and for quantised ones
    where numerics say so: equal where the bits are.

    CPUs with the same instructions may sum in different orders (their caches differ, or their libraries, or one has no
    compiler for our own kernels): then so do the fingerprints.
    """
    digest = hashlib.blake2b(digest_size=3)
    shapes = sorted(set(shapes))
    for n_out, n_in in shapes:
        weight, x = sample(n_out, n_in, 3)
        product = Linear(weight, numerics.without_quantisation)(x)
        is_own = native.why_absent() is None
        norm = native.normalise(x, x[0], 1e-5) if is_own else F.rms_norm(x, (n_in,), x[0], 1e-5)
        for part in (product, norm):
            digest.update(part.view(torch.int16).numpy().tobytes())
    weight, x = sample(*_GATE, 3)
    for part in (Linear(weight, numerics)(x), Gate((weight, weight.flip(0)), numerics)(x)):
        digest.update(part.view(torch.int16).numpy().tobytes())
    scores = sample(64, 256, 64)[1]
    digest.update(scores.softmax(-1).view(torch.int16).numpy().tobytes())
    digest.update(torch.bmm(scores[None], scores.t()[None]).view(torch.int16).numpy().tobytes())
    if native.why_absent() is None:
        rows, cached = sample(2 * PAGE, 64, 3)[1].view(3, 2, 32), sample(2 * PAGE, 32, 1)[0].view(2, 1, PAGE, 32)
        attended = native.attend(rows, list(cached), list(cached), 0, PAGE + 7, None)
        digest.update(attended.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


_GATE = (448, 256)
"""(out, in) of a gate that is weighed up: what follows its sums does not depend on its shape."""
