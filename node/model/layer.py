"""A layer of a Mistral-family transformer."""

from __future__ import annotations

from torch import Tensor

from node.model.attention import Attention
from node.model.batch import Batch
from node.model.experts import Steps
from node.model.feed_forward import FeedForward
from node.model.moe import MoE
from node.model.norm import RMSNorm


class Layer:
    """h (T, D) -> (T, D): attention, then one feed-forward network or a mixture, each added to the residual."""

    __slots__ = ("attention", "attention_norm", "feed_forward", "ffn_norm")

    def __init__(
        self, attention_norm: RMSNorm, attention: Attention, ffn_norm: RMSNorm, feed_forward: FeedForward | MoE
    ) -> None:
        self.attention_norm = attention_norm
        self.attention = attention
        self.ffn_norm = ffn_norm
        self.feed_forward = feed_forward

    def steps(self, h: Tensor, batch: Batch, layer_idx: int) -> Steps[Tensor]:
        h = h + self.attention(self.attention_norm(h), batch, layer_idx)
        x = self.ffn_norm(h)
        if isinstance(self.feed_forward, MoE):
            mixed = yield from self.feed_forward.steps(x)
        else:
            mixed = self.feed_forward(x)
        return h + mixed
