"""product_kernels.py for tensors: weights in the form that its kernels read, and what multiplies by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from node.model.ops.gpu import product_kernels as kernels
from node.model.ops.int4 import GROUP, quantise_groups
from node.model.ops.int8 import quantise_channels

_OFFSET = 128
"""What is added to an int8 value, see product_kernels."""

_SLAB_VALUES = 1 << 24
"""Values that are quantised at a time: their fp32 forms take a few hundred MB meanwhile."""

MANY_ROWS = 64
"""From so many rows on, a library multiplies bf16 rows by a single matrix faster than our kernels."""


class Matrix:
    """Room on a device for a matrix (out, in), or for the two of a gate, and their products once they are taken.

    x (T, in) bf16 -> x @ weight.T (T, out), or silu(x @ w1.T) * (x @ w3.T); summed in fp32, rounded once.
    """

    __slots__ = ("n_in", "n_matrices", "n_out", "scale_table", "scales", "table", "values")

    element: int

    def __init__(self, shape: torch.Size, n_matrices: int, values: Tensor, scales: Tensor | None) -> None:
        self.n_out, self.n_in = shape
        self.n_matrices = n_matrices
        self.values = values
        self.scales = scales
        self.table, self.scale_table = _tables([self])

    def take(self, weight: Tensor, nth: int = 0) -> None:
        """The nth matrix, bf16; it is not kept."""
        raise NotImplementedError

    def __call__(self, x: Tensor) -> Tensor:
        return self.multiply(x)

    def multiply(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """residual (T, out): added to the rounded product."""
        x = x.contiguous()
        n_rows = x.shape[0]
        out = torch.empty(n_rows, self.n_out, dtype=x.dtype, device=x.device)
        is_added = residual is not None
        residual = out if residual is None else residual
        if n_rows == 1:
            _multiply_row(self, x, self.table, residual, out, 1, False, False, is_added)
        else:
            _multiply_rows(self, x, self.table, self.table, residual, out, n_rows, n_rows, 1, 1, False, False, is_added)
        return out


class Bf16(Matrix):
    """Of bf16 values."""

    __slots__ = ()
    element = 16

    def __init__(self, shape: torch.Size, n_matrices: int, device: torch.device) -> None:
        super().__init__(shape, n_matrices, torch.empty(n_matrices, *shape, dtype=torch.bfloat16, device=device), None)

    def take(self, weight: Tensor, nth: int = 0) -> None:
        self.values[nth] = weight

    def multiply(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        if x.shape[0] < MANY_ROWS:
            return super().multiply(x, residual)
        product = F.linear(x, self.values[0])
        if self.n_matrices == 2:
            product = F.silu(product, inplace=True).mul_(F.linear(x, self.values[1]))
        return product if residual is None else product.add_(residual)


class Int8(Matrix):
    """Of int8 values, 128 added, each output channel with a scale of its own; rows stay bf16."""

    __slots__ = ()
    element = 8

    def __init__(self, shape: torch.Size, n_matrices: int, device: torch.device) -> None:
        values = torch.empty(n_matrices, *shape, dtype=torch.uint8, device=device)
        super().__init__(shape, n_matrices, values, torch.empty(n_matrices, shape[0], device=device))

    def take(self, weight: Tensor, nth: int = 0) -> None:
        assert self.scales is not None
        values, self.scales[nth] = quantise_channels(weight)
        self.values[nth] = values.view(torch.uint8).bitwise_xor(_OFFSET)


class Int4(Matrix):
    """Of values of 4 bits; every 32 of an output channel share a scale and a middle; rows stay bf16."""

    __slots__ = ()
    element = 4

    def __init__(self, shape: torch.Size, n_matrices: int, device: torch.device) -> None:
        n_groups = -(-shape[1] // GROUP)
        values = torch.empty(n_matrices, shape[0], n_groups, GROUP // 2, dtype=torch.uint8, device=device)
        scales = torch.empty(n_matrices, shape[0], n_groups, 2, dtype=torch.bfloat16, device=device)
        super().__init__(shape, n_matrices, values, scales)

    def take(self, weight: Tensor, nth: int = 0) -> None:
        assert self.scales is not None
        height = max(1, _SLAB_VALUES // self.n_in)
        for row in range(0, self.n_out, height):
            slab = slice(row, row + height)
            values, scales = quantise_groups(F.pad(weight[slab], (0, -self.n_in % GROUP)))
            first, second = values.to(torch.uint8).unflatten(1, (-1, 2, GROUP // 2)).unbind(2)  # (out, G, 16) each
            self.values[nth, slab] = first | second << 4
            self.scales[nth, slab] = scales.transpose(0, 1)


class Matrices:
    """The same matrix of each of a layer's experts, by their addresses."""

    __slots__ = ("_of", "element", "n_in", "n_matrices", "n_out", "scale_table", "table")

    def __init__(self, of: Sequence[Matrix]) -> None:
        first = of[0]
        self._of = of  # whose addresses these are
        self.element, self.n_matrices = first.element, first.n_matrices
        self.n_out, self.n_in = first.n_out, first.n_in
        self.table, self.scale_table = _tables(of)


def _tables(of: Sequence[Matrix]) -> tuple[Tensor, Tensor]:
    """int64 each: the addresses of values and scales."""
    device = of[0].values.device
    values = [one.values.data_ptr() for one in of]
    scales = [0 if one.scales is None else one.scales.data_ptr() for one in of]
    return torch.tensor(values, device=device), torch.tensor(scales, device=device)


@dataclass(frozen=True, slots=True)
class Routing:
    """Which experts T rows go to. weights fp32, chosen int32 (T, k), ascending; pair i is row i // k with one of them.

    order int32 (T * k): the pairs by expert. starts int32 (E + 1): where in it each expert's begin, and its end.
    """

    weights: Tensor
    chosen: Tensor
    order: Tensor
    starts: Tensor


def multiply_chosen(of: Matrices, x: Tensor, routing: Routing, *, is_by_pair: bool) -> Tensor:
    """Rows through the experts that they chose. First x (T, in) -> (T * k, out), by expert; then, is_by_pair, x (T * k,
    in) by expert -> (T * k, out), pair by pair.
    """
    n_rows, n_chosen = routing.chosen.shape
    n_pairs = n_rows * n_chosen
    out = torch.empty(n_pairs, of.n_out, dtype=x.dtype, device=x.device)
    if n_rows == 1:
        _multiply_row(of, x, routing.chosen, out, out, n_chosen, True, is_by_pair, False)
    else:
        n_experts = of.table.shape[0]
        rows_each = -(-n_pairs // n_experts)
        _multiply_rows(
            of, x, routing.order, routing.starts, out, out, n_rows, rows_each, n_experts, n_chosen, True, is_by_pair,
            False,
        )  # fmt: skip
    return out


def _multiply_row(
    of: Matrix | Matrices, x: Tensor, experts: Tensor, residual: Tensor, out: Tensor, n_pairs: int, *flags: bool
) -> None:
    block_n, block_k, n_warps = row_blocks(of.element, of.n_out, of.n_in)
    kernels.multiply_row[(triton.cdiv(of.n_out, block_n), n_pairs)](
        x, of.table, of.scale_table, experts, residual, out, of.n_out, of.n_in, of.n_in,
        of.element, of.n_matrices, *flags, block_n, block_k, enable_fp_fusion=True, num_warps=n_warps,
    )  # fmt: skip


def _multiply_rows(
    of: Matrix | Matrices, x: Tensor, order: Tensor, starts: Tensor, residual: Tensor, out: Tensor, n_rows: int,
    rows_each: int, n_experts: int, n_chosen: int, *flags: bool,
) -> None:  # fmt: skip
    """rows_each: how many rows meet in a matrix, if they are shared out evenly."""
    block_m, block_n, block_k, n_warps, n_stages = tile_blocks(of.element, of.n_matrices, rows_each)
    kernels.multiply_rows[(triton.cdiv(of.n_out, block_n), n_experts)](
        x, of.table, of.scale_table, order, starts, residual, out, n_rows, of.n_out, of.n_in, of.n_in, n_chosen,
        of.element, of.n_matrices, *flags, block_m, block_n, block_k,
        enable_fp_fusion=True, num_warps=n_warps, num_stages=n_stages,
    )  # fmt: skip


def row_blocks(element: int, n_out: int, n_in: int) -> tuple[int, int, int]:
    """Output channels and values of a program that multiplies one row, and its warps."""
    values = min(1024, max(64, triton.next_power_of_2(n_in)))
    if element == 4:
        return 4, values, 4
    return 8, values, 8 if element == 16 and n_in >= 8192 else 4


def tile_blocks(element: int, n_matrices: int, rows_each: int) -> tuple[int, int, int, int, int]:
    """Rows, output channels and values of a program's tiles, its warps, and how many tiles it loads ahead."""
    block_m = min(128, max(16, triton.next_power_of_2(rows_each)))
    if block_m == 128:
        is_wide = n_matrices == 1 and element == 16 and torch.version.hip is None  # AMD's have 64 KB for two such tiles
        return (128, 256, 64, 8, 3) if is_wide else (128, 128, 64, 8, 3)
    if block_m == 64:
        return 64, 128, 64, 4, 3
    if element != 16:
        return block_m, 64, 128, 4, 3
    return (16, 32, 256, 8, 3) if block_m == 16 else (32, 32, 128, 4, 4)
