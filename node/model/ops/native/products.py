"""products.c for tensors: packed weights, and what multiplies by them.

A row's bits depend on the row and the weight alone: not on the rows beside it, and not on the number of threads. A
weight takes the memory of its values, rounded up to whole tiles.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from node.model.ops.int8 import quantise_channels
from node.model.ops.native.library import Matrix, library
from node.model.ops.native.room import ROOM

_LINE_BYTES = 64
_TILE_COLUMNS = 16
_STEP_BYTES = 2048
"""Of a strip of two tiles abreast."""

_BF16, _INT8 = 0, 1
_ITEM_BYTES = (2, 1)


class _Strips:
    """Room for a matrix (out, in), or for the two of a gate, and their products once they are taken.

    x (T, in) bf16 -> x @ weight.T (T, out), or silu(x @ w1.T) * (x @ w3.T); summed exactly or in fp32, rounded once.
    matrix: the same, for other kernels in C, as long as this object lives.
    """

    __slots__ = ("_n_in", "_n_matrices", "_n_out", "_packed", "_scales", "matrix")

    def __init__(self, shape: torch.Size, n_matrices: int, element: int) -> None:
        self._n_out, self._n_in = shape
        self._n_matrices = n_matrices
        n_strips = -(-n_matrices * -(-self._n_out // _TILE_COLUMNS) // 2)
        n_steps = -(-self._n_in * _ITEM_BYTES[element] // _LINE_BYTES)
        self._packed = ROOM.take(n_strips * n_steps * _STEP_BYTES)
        self._scales = torch.zeros(n_strips, 2, _TILE_COLUMNS) if element == _INT8 else None
        scales = None if self._scales is None else self._scales.data_ptr()
        self.matrix = Matrix(self._packed.data_ptr(), scales, self._n_in, self._n_out, element, n_matrices)

    def _pack(self, values: Tensor, nth: int) -> None:
        values = values.contiguous()
        row_bytes = self._n_in * values.itemsize
        library().pack(values.data_ptr(), self._n_out, row_bytes, self._packed.data_ptr(), nth, self._n_matrices)

    def __call__(self, x: Tensor) -> Tensor:
        if x.stride(1) != 1:
            x = x.contiguous()
        out = torch.empty(x.shape[0], self._n_out, dtype=torch.bfloat16)
        rows = x.data_ptr(), x.stride(0), x.shape[0]
        if library().multiply(self.matrix, *rows, out.data_ptr(), torch.get_num_threads()):
            raise MemoryError("there is no memory for the rows of a product")
        return out


class Bf16(_Strips):
    """Of bf16 values, summed in fp32."""

    __slots__ = ()

    def __init__(self, shape: torch.Size, n_matrices: int = 1) -> None:
        super().__init__(shape, n_matrices, _BF16)

    def take(self, weight: Tensor, nth: int = 0) -> None:
        """Pack the nth matrix, bf16; it is not kept."""
        self._pack(weight, nth)


class Int8(_Strips):
    """Of int8 values, each row and each output channel with a scale of its own, summed in whole numbers."""

    __slots__ = ()

    def __init__(self, shape: torch.Size, n_matrices: int = 1) -> None:
        super().__init__(shape, n_matrices, _INT8)

    def take(self, weight: Tensor, nth: int = 0) -> None:
        """Quantise and pack the nth matrix, bf16; it is not kept. Raises: BadArgument for rows beyond 2^16 values."""
        values, scales = quantise_channels(weight)
        self._pack(values, nth)
        assert self._scales is not None
        of_matrix = self._scales[:, nth] if self._n_matrices == 2 else self._scales.view(-1, _TILE_COLUMNS)
        padded = F.pad(scales, (0, -len(scales) % _TILE_COLUMNS)).view(-1, _TILE_COLUMNS)
        of_matrix[: len(padded)] = padded


def is_right() -> bool:
    """Whether small products of whole numbers come out as they must."""
    generator = torch.Generator().manual_seed(0)
    w1, w3, x = (torch.randint(-4, 5, (n, 72), generator=generator).bfloat16() for n in (40, 40, 33))
    w1[:, 0], w3[:, 0], x[:, 0] = 127, 127, 127  # so that int8's scales are 1
    product, other = x.float() @ w1.float().T, x.float() @ w3.float().T
    for kind in (Bf16, Int8):
        one, gate = kind(w1.shape), kind(w1.shape, 2)
        one.take(w1)
        gate.take(w1, 0)
        gate.take(w3, 1)
        for got, expected in ((one(x), product), (gate(x), F.silu(product) * other)):
            if not torch.allclose(got.float(), expected, rtol=2**-7, atol=0):
                return False
    return True
