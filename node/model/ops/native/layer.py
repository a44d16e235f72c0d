"""layer.c for tensors: a whole layer in one call, and what its calls share."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from node.model.ops.native import library as c
from node.model.ops.native.products import Bf16, Int8
from node.model.ops.parts import Parts, Session
from swarm.errors import LocalProtocolError
from swarm.pages import PAGE

Own = Bf16 | Int8


class Rows:
    """The rows that go through the layers together, and room for what a layer makes of them on the way.

    rotations: of queries and keys, complex64 (T, 1, hd / 2).
    """

    def __init__(self, sessions: Sequence[Session], rotations: tuple[Tensor, Tensor]) -> None:
        self.sessions = (c.Chunk * len(sessions))(
            *(
                c.Chunk(s.n_rows, s.position, s.window or 0, s.first_page, 0, len(s.pages), _addresses(s.pages))
                for s in sessions
            )
        )
        self._rotations = tuple(of.contiguous() for of in rotations)
        self._of = sessions  # whose pages the addresses are of
        self.n_rows = sum(session.n_rows for session in sessions)
        self.batch = c.Batch(self.sessions, len(sessions), self.n_rows, *(of.data_ptr() for of in self._rotations), 0)
        self._room: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    def room(self, dim: int, n_experts: int, n_chosen: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x (T, D), weights (T, k), chosen (T, k) and counts (E): the same at every layer."""
        if self._room is None:
            self._room = (
                torch.empty(self.n_rows, dim, dtype=torch.bfloat16),
                torch.ones(self.n_rows, n_chosen),
                torch.zeros(self.n_rows, n_chosen, dtype=torch.long),
                torch.zeros(n_experts, dtype=torch.long),
            )
        return self._room


class Layer:
    """h (T, D) bf16 -> h + attention(norm(h)), and to that its mixture or its feed-forward network. A row's bits depend
    on no other row.
    """

    __slots__ = ("_layer", "_parts", "_shape", "_values_of_a_layer")

    def __init__(self, parts: Parts[Own]) -> None:
        if len({w13.matrix.n_out for w13, _ in parts.experts}) > 1:
            raise LocalProtocolError("experts of several sizes in one layer; its kernel makes room for those of one")
        self._parts = parts  # what the addresses are of
        attention_norm, ffn_norm = parts.norms
        dim = len(attention_norm)
        pairs = parts.experts or ((None, None),) * parts.n_experts
        self._shape = dim, parts.n_experts, parts.n_chosen
        self._values_of_a_layer = 2 * parts.n_kv_heads * PAGE * parts.head_dim
        self._layer = c.Layer(
            attention_norm.data_ptr(),
            ffn_norm.data_ptr(),
            _matrix(parts.wqkv),
            _matrix(parts.wo),
            _matrix(parts.router),
            _matrices([w13 for w13, _ in pairs]),
            _matrices([w2 for _, w2 in pairs]),
            dim,
            parts.n_heads,
            parts.n_kv_heads,
            parts.head_dim,
            parts.n_experts,
            parts.n_chosen,
            parts.epsilon,
        )

    @property
    def has_experts(self) -> bool:
        return bool(self._parts.experts)

    def run(self, h: Tensor, rows: Rows, nths: Sequence[int]) -> tuple[Tensor, Tensor]:
        """-> (T, D), and how many rows went to each expert, int64 (E), until the next layer. All experts are here.

        nths: which of each session's layers that share a page this one is.
        """
        out, (_, _, _, counts) = self._call(c.library().run_layer, h, rows, nths)
        return out, counts

    def attend_and_route(self, h: Tensor, rows: Rows, nths: Sequence[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The first half -> (T, D), its norm x (T, D), and until the next layer of each row its experts' weights, fp32
        (T, k), and which those are, ascending, int64 (T, k).
        """
        out, (x, weights, chosen, _) = self._call(c.library().attend_and_route, h, rows, nths)
        return out, x, weights, chosen

    def _call(
        self, of_a_layer: c.OfALayer, h: Tensor, rows: Rows, nths: Sequence[int]
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
        h = h.contiguous()
        for session, nth in zip(rows.sessions, nths, strict=True):
            session.keys_at = nth * self._values_of_a_layer
        rows.batch.n_threads = torch.get_num_threads()
        out = torch.empty_like(h)
        x, weights, chosen, counts = room = rows.room(*self._shape)
        routing = c.Routing(weights.data_ptr(), chosen.data_ptr(), counts.data_ptr())
        if of_a_layer(self._layer, rows.batch, h.data_ptr(), out.data_ptr(), x.data_ptr(), routing):
            raise MemoryError("there is no memory for the rows of a layer")
        return out, room


def _matrix(own: Own | None) -> ctypes._Pointer[c.Matrix] | None:
    return None if own is None else ctypes.pointer(own.matrix)


def _matrices(owns: Sequence[Own | None]) -> ctypes.Array[ctypes._Pointer[c.Matrix]]:
    pointers = (ctypes.POINTER(c.Matrix) * len(owns))()
    for i, own in enumerate(owns):
        if own is not None:
            pointers[i] = ctypes.pointer(own.matrix)
    return pointers


def _addresses(pages: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(pages))(*(page.data_ptr() for page in pages))
