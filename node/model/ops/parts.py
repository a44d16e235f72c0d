"""What a layer's own kernels are handed, on a CPU or on a GPU: its weights, and whose rows are where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor

Own = TypeVar("Own", covariant=True)
"""A matrix, or the two of a gate, in the form that these kernels read."""

MAX_EXPERTS = 256
MAX_CHOSEN = 16


@dataclass(frozen=True, slots=True)
class Parts(Generic[Own]):
    """A layer's weights. norms: of attention and feed-forward, bf16 (D). router: None for a dense layer, which has one
    expert. experts: w13 and w2 of each; () while not all of them are here. head_dim is one that fits.
    """

    norms: tuple[Tensor, Tensor]
    epsilon: float
    wqkv: Own
    wo: Own
    router: Own | None
    experts: Sequence[tuple[Own, Own]]
    n_heads: int
    n_kv_heads: int
    head_dim: int
    n_experts: int = 1
    n_chosen: int = 1


@dataclass(frozen=True, slots=True)
class Session:
    """n_rows of one session from position on; pages: those from first_page on, bf16 (layers, 2, KVH, PAGE, hd)."""

    n_rows: int
    position: int
    window: int | None
    first_page: int
    pages: Sequence[Tensor]
