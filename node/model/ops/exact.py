"""bf16 products whose rows have the same bits whatever stands beside them, on CPUs.

A library picks its way of summing by the shape of a product and the number of threads, so that a row computed alone
may differ in its last bit from the same row among 512. Here a weight is multiplied by a few numbers of rows only (its
menu), each of which was compared bit for bit with the others when a weight of that shape was first seen; other numbers
of rows are padded to one of them, and many rows are cut into several. Tall weights are cut into slabs as well, so that
a slab is read from memory once while many tiles of rows go over it.

The cost: padding (none for 1, 2, 4, 8, … rows) and, where a library sums many rows in another order than few, smaller
tiles: scripts/bench batch and prefill show both.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from node.model.ops.onednn import Packed
from node.model.ops.plain import Plain
from swarm.errors import BadArgument

Kernel = Packed | Plain

_ROWS = (1, 2, 4, 8, 16, 32)
_MANY_ROWS = (64, 128, 256)
"""More rows in one product pay where they have the same bits; they are not tried with large weights, where 32 rows a
tile lose nothing and trying costs seconds."""

_REFERENCE_ROWS = 16
_COMPARED_TILES = 4
_FULL_ROWS = 32
"""Rows in a tile from which on two full tiles cost no more than one that is padded."""

_LARGE_VALUES = 1 << 23
_SLAB_MULTIPLE = 64
_SLAB_VALUES = 1 << 25
"""64 MiB of bf16: tiles of rows go over a slab of that size from the cache, and a single row loses nothing by it, as it
does by thinner ones."""


class Exact:
    """weight (out, in) bf16 -> a Multiply whose rows do not depend on one another's number."""

    __slots__ = ("_menu", "_n_out", "_slabs")

    def __init__(self, weight: Tensor) -> None:
        self._n_out, n_in = weight.shape
        n_slabs = -(-weight.numel() // _SLAB_VALUES)
        height = -(-self._n_out // n_slabs // _SLAB_MULTIPLE) * _SLAB_MULTIPLE
        slabs = weight.contiguous().split(height)
        self._slabs = [(i * height, _kernel(slab)) for i, slab in enumerate(slabs)]
        n_threads = torch.get_num_threads()
        menus = [set(menu_of(n_out, n_in, n_threads)) for n_out in {slab.shape[0] for slab in slabs}]
        self._menu = tuple(sorted(set.intersection(*menus)))

    def __call__(self, x: Tensor) -> Tensor:
        return self._over_tiles(x, None, lambda kernel, tile, _: kernel(tile))

    def silu(self, x: Tensor) -> Tensor:
        return self._over_tiles(x, None, lambda kernel, tile, _: kernel.silu(tile))

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        return self._over_tiles(x, other, lambda kernel, tile, factor: kernel.times(tile, factor))

    def _over_tiles(
        self, x: Tensor, other: Tensor | None, product: Callable[[Kernel, Tensor, Tensor], Tensor]
    ) -> Tensor:
        n_rows = x.shape[0]
        if n_rows in self._menu and len(self._slabs) == 1:
            return product(self._slabs[0][1], x, other if other is not None else x)
        cuts = tiles(n_rows, self._menu)
        inputs = [_padded(x, row, size) for row, size in cuts]
        out = x.new_empty(n_rows, self._n_out)
        end = self._n_out
        for column, kernel in reversed(self._slabs):
            for (row, size), tile in zip(cuts, inputs, strict=True):
                factor = tile if other is None else _padded(other[:, column:end], row, size)
                out[row : row + size, column:end] = product(kernel, tile, factor)[: n_rows - row]
            end = column
        return out


def _kernel(weight: Tensor) -> Kernel:
    return Packed(weight) if torch.ops.mkldnn._is_mkldnn_bf16_supported() else Plain(weight)


def tiles(n_rows: int, menu: tuple[int, ...]) -> list[tuple[int, int]]:
    """Cut n_rows into (first row, number of rows), numbers on the menu; only the last tile may reach beyond them."""
    cuts = []
    row = 0
    while row < n_rows:
        left = n_rows - row
        full = max((size for size in menu if size <= left), default=0)
        padded = min((size for size in menu if size >= left), default=menu[-1])
        size = full if full == left or full >= _FULL_ROWS else padded
        cuts.append((row, size))
        row += size
    return cuts


def _padded(x: Tensor, row: int, size: int) -> Tensor:
    tile = x[row : row + size]
    return tile.contiguous() if tile.shape[0] == size else F.pad(tile, (0, 0, 0, size - tile.shape[0]))


@lru_cache(maxsize=256)
def menu_of(n_out: int, n_in: int, n_threads: int) -> tuple[int, ...]:
    """The numbers of rows which give a row the same bits, compared here and now on a weight of that shape.

    On one thread and on n_threads: what is on the menu has the bits of one thread.
    Raises: BadArgument where the number of threads changes the bits whatever the number of rows.
    """
    counts = _ROWS if n_out * n_in >= _LARGE_VALUES else _ROWS + _MANY_ROWS
    weight, x = sample(n_out, n_in, max(counts))
    kernel = _kernel(weight)
    with _threads(1):
        reference = torch.cat([kernel(tile) for tile in x.split(_REFERENCE_ROWS)])
        same = [n for n in counts if _agrees(kernel, x, n, reference)]
    if n_threads > 1:
        with _threads(n_threads):
            same = [n for n in same if _agrees(kernel, x, n, reference)]
    if not same:
        raise BadArgument(
            f"bf16 products of {n_out} x {n_in} differ between 1 and {n_threads} threads on this CPU; start the node "
            "with --threads 1, or with --profile fast"
        )
    return tuple(same)


def _agrees(kernel: Kernel, x: Tensor, n_rows: int, reference: Tensor) -> bool:
    """Whether tiles of n_rows, a few of them, have the reference's bits."""
    starts = range(0, len(x), n_rows)[:_COMPARED_TILES]
    return all(torch.equal(kernel(x[row : row + n_rows]), reference[row : row + n_rows]) for row in starts)


def sample(n_out: int, n_in: int, n_rows: int) -> tuple[Tensor, Tensor]:
    """A weight (n_out, n_in) and rows (n_rows, n_in), always the same."""
    generator = torch.Generator().manual_seed(n_out * 65537 + n_in)
    noise = torch.randn(1 << 16, generator=generator).bfloat16()
    n_values = n_out * n_in
    # A prime number of values repeats without lining up with any row.
    weight = noise[:65521].repeat(-(-n_values // 65521))[:n_values].view(n_out, n_in)
    return weight, torch.randn(n_rows, n_in, generator=generator).bfloat16()


@contextlib.contextmanager
def _threads(n: int) -> Iterator[None]:
    """A `with` in which torch computes on n threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
