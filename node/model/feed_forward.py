"""The SwiGLU feed-forward network: a dense layer's second half, or one expert of a Mixtral layer."""

from __future__ import annotations

from torch import Tensor

from node.model.ops import Linear


class FeedForward:
    """x (T, D) -> w2(silu(w1 x) * w3 x) (T, D).

    Source: Shazeer 2020, "GLU variants improve Transformer".
    """

    __slots__ = ("w1", "w2", "w3")

    def __init__(self, w1: Linear, w2: Linear, w3: Linear) -> None:
        self.w1 = w1
        self.w2 = w2
        self.w3 = w3

    def __call__(self, x: Tensor) -> Tensor:
        return self.w2(self.w3.times(x, self.w1.silu(x)))
