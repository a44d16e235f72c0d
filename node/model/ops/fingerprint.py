"""What a machine computes, in a few digits that travel in the name of its profile."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from node.model.ops import native
from node.model.ops.exact import sample
from node.model.ops.linear import Gate, Linear
from node.model.ops.numerics import Numerics
from node.model.ops.parts import Parts, Session
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
        rows, cached = sample(2 * PAGE, 64, 3)[1].view(3, 2, 32), sample(4 * PAGE, 32, 1)[0].view(2, 1, 2, 1, PAGE, 32)
        attended = native.attend(rows, list(cached), 0, 0, PAGE + 7, None)
        digest.update(_REVISION)
        for part in (attended, _whole_layer()):
            digest.update(part.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def _whole_layer() -> Tensor:
    """(3, 64): what a small mixture layer of our own kernels makes of three rows: rotations, routing and sums too."""
    dim, head_dim, n_experts = 64, 32, 4

    def product(n_out: int, n_in: int, n_matrices: int = 1) -> native.Bf16:
        packed = native.Bf16(torch.Size((n_out, n_in)), n_matrices)
        for nth in range(n_matrices):
            packed.take(sample(n_out, n_in, 1)[0].roll(nth, 0), nth)
        return packed

    x = sample(dim, dim, 3)[1]
    parts = Parts(
        norms=(x[0].contiguous(), x[1].contiguous()),
        epsilon=1e-5,
        wqkv=product(4 * head_dim, dim),
        wo=product(dim, 2 * head_dim),
        router=product(n_experts, dim),
        experts=[(product(n, dim, 2), product(dim, n)) for n in [96] * n_experts],
        n_heads=2,
        n_kv_heads=1,
        head_dim=head_dim,
        n_experts=n_experts,
        n_chosen=2,
    )
    page = sample(2 * PAGE, head_dim, 1)[0].clone()  # keys, then values
    angles = torch.arange(3)[:, None, None] * torch.linspace(1.0, 0.01, head_dim // 2)
    rotations = torch.polar(torch.ones_like(angles), angles)
    rows = native.Rows([Session(3, 20, None, 0, [page])], (rotations, rotations))
    return native.Layer(parts).run(x, rows, [0])[0]


_REVISION = b"2"
"""Of our own kernels: counts changes of their order of sums, which few of the values above would show."""

_GATE = (448, 256)
"""(out, in) of a gate that is weighed up: what follows its sums does not depend on its shape."""
