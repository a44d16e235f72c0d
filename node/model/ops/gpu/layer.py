"""Whole layers out of our own kernels: nine launches each, and nothing that the host must know on the way."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
from torch import Tensor

from node.model.ops.gpu import row_kernels as kernels
from node.model.ops.gpu.attention import Rows, attend, rotate_and_write
from node.model.ops.gpu.products import Matrices, Matrix, Routing, multiply_chosen
from node.model.ops.parts import Parts
from swarm.errors import LocalProtocolError

_ROUTER_VALUES = 16384
"""Of the router's matrix, in a program's registers."""

_ALIGNED = 4
"""Whole numbers of 32 bits: Triton compiles anew for other alignments."""

_PAIRS = 64
"""Pairs of a row and an expert that one program puts in order."""


class Layer:
    """h (T, D) bf16 -> h + attention(norm(h)), and to that its mixture or its feed-forward network.

    counts: of a mixture, int32 (E): how many rows went to each expert; it wraps around.
    """

    __slots__ = ("_parts", "_w2", "_w13", "counts")

    def __init__(self, parts: Parts[Matrix]) -> None:
        if len({w13.n_out for w13, _ in parts.experts}) > 1:
            raise LocalProtocolError("experts of several sizes in one layer; its kernels read those of one")
        self._parts = parts
        self._w13 = Matrices([w13 for w13, _ in parts.experts]) if parts.experts else None
        self._w2 = Matrices([w2 for _, w2 in parts.experts]) if parts.experts else None
        device = parts.norms[0].device
        self.counts = torch.zeros(parts.n_experts, dtype=torch.int32).to(device)  # and it is there: others may read it

    @property
    def has_experts(self) -> bool:
        return bool(self._parts.experts)

    def enter(self, h: Tensor) -> Tensor:
        """What run takes as x in the first layer."""
        return normalise(h, self._parts.norms[0], self._parts.epsilon)

    def run(self, h: Tensor, x: Tensor, rows: Rows, nth: int, then: Layer | None = None) -> tuple[Tensor, Tensor]:
        """h, and x, its norm -> the layer's h and what the layer `then` takes as x. All experts are here."""
        parts = self._parts
        w13, w2 = self._w13, self._w2
        assert w13 is not None and w2 is not None
        h = self._attention(h, x, rows, nth)
        if parts.router is None:
            x = normalise(h, parts.norms[1], parts.epsilon)
            ((gate, out),) = parts.experts
            h = out.multiply(gate(x), h)
            return h, x if then is None else then.enter(h)
        x, routing = self._route(h, parts.router)
        hidden = multiply_chosen(w13, x, routing, is_by_pair=False)
        answers = multiply_chosen(w2, hidden, routing, is_by_pair=True)
        return self._mix(h, answers, routing, then)

    def attend_and_route(self, h: Tensor, rows: Rows, nth: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The first half -> h (T, D), its norm x (T, D), and of each row its experts' weights, fp32 (T, k), and which
        those are, ascending, int64 (T, k).
        """
        assert self._parts.router is not None
        h = self._attention(h, self.enter(h), rows, nth)
        x, routing = self._route(h, self._parts.router)
        return h, x, routing.weights, routing.chosen.long()

    def _attention(self, h: Tensor, x: Tensor, rows: Rows, nth: int) -> Tensor:
        parts = self._parts
        qkv = parts.wqkv(x)
        xq = rotate_and_write(qkv, rows, parts.n_heads, parts.n_kv_heads, parts.head_dim, nth)
        return parts.wo.multiply(attend(xq, rows, parts.n_kv_heads, nth), h)

    def _route(self, h: Tensor, router: Matrix) -> tuple[Tensor, Routing]:
        parts = self._parts
        (n_rows, dim), n_experts, n_chosen = h.shape, parts.n_experts, parts.n_chosen
        n_pairs = n_rows * n_chosen
        x = torch.empty_like(h)
        weights = torch.empty(n_rows, n_chosen, device=h.device)
        room = -(-n_pairs // _ALIGNED) * _ALIGNED
        ints = torch.empty(2 * room + n_experts + 1, dtype=torch.int32, device=h.device)
        chosen, order, starts = ints[:n_pairs], ints[room : room + n_pairs], ints[2 * room :]
        kernels.normalise_and_route[(n_rows,)](
            h, parts.norms[1], router.values, x, weights, chosen, self.counts, parts.epsilon, dim, n_experts,
            n_chosen, triton.next_power_of_2(n_experts), triton.next_power_of_2(dim),
            min(triton.next_power_of_2(dim), _ROUTER_VALUES // triton.next_power_of_2(n_experts)),
            enable_fp_fusion=True, num_warps=16,
        )  # fmt: skip
        if n_rows > 1:
            padded = triton.next_power_of_2(n_experts + 1)
            kernels.group[(triton.cdiv(n_pairs, _PAIRS),)](
                chosen, order, starts, n_pairs, n_experts, padded, _PAIRS, enable_fp_fusion=True
            )
        return x, Routing(weights, chosen.view(n_rows, n_chosen), order, starts)

    def _mix(self, h: Tensor, answers: Tensor, routing: Routing, then: Layer | None) -> tuple[Tensor, Tensor]:
        n_rows, dim = h.shape
        out = torch.empty_like(h)
        x = torch.empty_like(h) if then is not None else out
        norm = h if then is None else then._parts.norms[0]
        kernels.mix[(n_rows,)](
            h, answers, routing.weights, norm, out, x, self._parts.epsilon, dim,
            self._parts.n_chosen, then is not None, triton.next_power_of_2(dim), enable_fp_fusion=True, num_warps=8,
        )  # fmt: skip
        return out, x


def run_layers(layers: Sequence[Layer], h: Tensor, rows: Sequence[Rows], nths: Sequence[int]) -> Tensor:
    """h (T, D) through the layers, all of whose experts are here. rows, nths: of each layer, see Layer.run."""
    h = h.contiguous()
    x = layers[0].enter(h)
    for i, layer in enumerate(layers):
        h, x = layer.run(h, x, rows[i], nths[i], layers[i + 1] if i + 1 < len(layers) else None)
    return h


def normalise(h: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """h (T, D) bf16 -> weight * h / sqrt(mean(h^2) + epsilon)."""
    h = h.contiguous()
    n_rows, dim = h.shape
    out = torch.empty_like(h)
    kernels.normalise[(n_rows,)](
        h, weight, out, epsilon, dim, triton.next_power_of_2(dim), enable_fp_fusion=True, num_warps=8
    )
    return out
