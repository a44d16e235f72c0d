"""A layer in one call into our own kernels, where this machine runs them for all of its products.

It computes what Layer says, in the same order, but for the last bits of the router's softmax (the libraries'
exponentials differ) and for which of two experts with equal logits is the first; layer.py stays the text to read. One
call a layer instead of thirty: while a token is computed, the weights that go by between two calls push Python's own
memory out of the caches.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from node.model.batch import Batch
from node.model.experts import Steps
from node.model.feed_forward import FeedForward
from node.model.layer import Layer
from node.model.moe import MoE
from node.model.ops import Gate, Linear, native
from node.model.ops.parts import MAX_CHOSEN, MAX_EXPERTS, Parts


class FusedLayer:
    """h (T, D) -> (T, D), as layer says. Experts that are not here are asked for between two calls."""

    __slots__ = ("_moe", "_native", "layer")

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self._moe = layer.feed_forward if isinstance(layer.feed_forward, MoE) else None
        self._native = native.Layer(parts_of(layer))

    def steps(self, h: Tensor, batch: Batch, layer_idx: int) -> Steps[Tensor]:
        caches = [chunk.cache.layer(layer_idx) for chunk in batch.chunks]
        rows = batch.native_rows([cache.group for cache in caches])
        nths = [cache.nth for cache in caches]
        if not self._native.has_experts and self._moe is not None and self._moe.is_whole:
            self._native = native.Layer(parts_of(self.layer))  # what was elsewhere has come
        if self._native.has_experts:
            h, counts = self._native.run(h, rows, nths)
            if self._moe is not None:
                self._moe.count(batch.n_rows, {i: n for i, n in enumerate(counts.tolist()) if n})
            return h
        assert self._moe is not None
        h, x, weights, chosen = self._native.attend_and_route(h, rows, nths)
        mixed = yield from self._moe.mix(x, weights, chosen)
        return h + mixed


def fused(layer: Layer) -> FusedLayer | None:
    """None where some product of the layer runs a library's kernel, or its sizes are not our kernels'."""
    if not runs_own_kernels(layer, (native.Bf16, native.Int8)) or not native.fits(layer.attention.head_dim):
        return None
    return FusedLayer(layer)


def runs_own_kernels(layer: Layer, kinds: type | tuple[type, ...]) -> bool:
    """Whether every product of the layer is of one of these kinds, and its mixture no larger than our kernels take."""
    attention, network = layer.attention, layer.feed_forward
    products: list[Linear | Gate] = [attention.wqkv, attention.wo]
    if isinstance(network, MoE):
        products.append(network.gate)
        if network.n_experts > MAX_EXPERTS or network.n_experts_per_tok > MAX_CHOSEN:
            return False
    else:
        products += [network.w13, network.w2]
    return all(isinstance(product.own, kinds) for product in products)


def parts_of(layer: Layer) -> Parts[Any]:
    """What the layer's kernels, all of one kind, are handed."""
    attention, network = layer.attention, layer.feed_forward
    mixture = network if isinstance(network, MoE) else None
    return Parts(
        norms=(layer.attention_norm.weight.contiguous(), layer.ffn_norm.weight.contiguous()),
        epsilon=layer.ffn_norm.eps,
        wqkv=_own(attention.wqkv),
        wo=_own(attention.wo),
        router=None if mixture is None else _own(mixture.gate),
        experts=_experts(network),
        n_heads=attention.n_heads,
        n_kv_heads=attention.n_kv_heads,
        head_dim=attention.head_dim,
        n_experts=1 if mixture is None else mixture.n_experts,
        n_chosen=1 if mixture is None else mixture.n_experts_per_tok,
    )


def _experts(network: FeedForward | MoE) -> list[tuple[Any, Any]]:
    """[] while not all of them are here."""
    if isinstance(network, FeedForward):
        experts = [network]
    elif network.is_whole:
        experts = [network.experts[expert_idx] for expert_idx in range(network.n_experts)]
    else:
        return []
    return [(_own(expert.w13), _own(expert.w2)) for expert in experts]


def _own(product: Linear | Gate) -> Any:
    assert product.own is not None
    return product.own
