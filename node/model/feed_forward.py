"""The SwiGLU feed-forward network: a dense layer's second half, or one expert of a Mixtral layer."""

from __future__ import annotations

from torch import Tensor

from node.model.ops import Gate, Linear


class FeedForward:
    """x (T, D) -> w2(silu(w1 x) * w3 x) (T, D). w13: the gate of w1 and w3.

    Source: Shazeer 2020, "GLU variants improve Transformer".
    """

    __slots__ = ("w2", "w13")

    def __init__(self, w13: Gate, w2: Linear) -> None:
        self.w13 = w13
        self.w2 = w2

    def __call__(self, x: Tensor) -> Tensor:
        return self.w2(self.w13(x))
