"""Rotary position embedding: each pair of a head's values is a complex number, turned by an angle per position.

Only one layout is computed, Mistral's own: pair i is values (2i, 2i+1). HF releases store wq and wk with pair i at
(i, head_dim/2 + i); their rows are put back once, when a layer is loaded, so that both formats run the same kernels
and give the same bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

_FIRST_TABLE_POSITIONS = 2048

_WHOLE_PAIRS = 1 << 15
"""More pairs at once torch shares out among its threads, and cuts a head's pairs wherever that comes out even. What is
left at a cut is not computed by vector instructions, and may differ in the last bit.
"""


class RopeTable:
    """The rotations of positions 0, 1, 2, …: built on demand, by doubling, so that a context nobody uses costs nothing.

    The angles are fp32 products computed on the CPU: every device rotates by the same numbers.
    """

    def __init__(self, head_dim: int, theta: float, device: torch.device | str) -> None:
        self._head_dim = head_dim
        self._theta = theta
        self.device = torch.device(device)
        self._table = self._build(0)

    def rotations(self, position: int, n_rows: int) -> Tensor:
        """complex64 (n_rows, 1, head_dim/2): those of positions [position, position + n_rows), for every head alike."""
        return self.covering(position + n_rows)[position : position + n_rows]

    def covering(self, n_positions: int) -> Tensor:
        """The table itself, of at least so many positions: the same tensor until more are asked for than it has."""
        if n_positions > len(self._table):
            self._table = self._build(max(n_positions, 2 * len(self._table), _FIRST_TABLE_POSITIONS))
        return self._table

    def _build(self, n_positions: int) -> Tensor:
        exponents = torch.arange(0, self._head_dim, 2, dtype=torch.float32) / self._head_dim  # (hd/2)
        angles = torch.outer(torch.arange(n_positions, dtype=torch.float32), 1.0 / self._theta**exponents)
        return torch.polar(torch.ones_like(angles), angles)[:, None].to(self.device)  # (P, 1, hd/2)


def rotate(x: Tensor, rotations: Tensor) -> Tensor:
    """Turn x (T, n, head_dim) fp32 by rotations (T, 1, head_dim/2) complex64, to (T, n, head_dim) fp32.

    A row's bits depend neither on the number of rows nor on the number of threads.
    Source: Su et al. 2021 (RoFormer), section 3.4.2.
    """
    most = max(1, 2 * _WHOLE_PAIRS // (x.shape[1] * x.shape[2]))
    if x.shape[0] > most:
        return torch.cat([rotate(*tile) for tile in zip(x.split(most), rotations.split(most), strict=True)])
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))  # (T, n, hd) -> (T, n, hd/2) complex
    return torch.view_as_real(pairs * rotations).flatten(-2)  # -> (T, n, hd)


def halves_to_interleaved(weight: Tensor, head_dim: int) -> Tensor:
    """Reorder the rows of an HF wq or wk (n * head_dim, D) to Mistral's own layout."""
    n = weight.shape[0] // head_dim
    return weight.view(n, 2, head_dim // 2, -1).transpose(1, 2).reshape(weight.shape)
