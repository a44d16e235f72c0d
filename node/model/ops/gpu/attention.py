"""attention_kernels.py for tensors, and where the rows of a batch are."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache

import torch
import triton
from torch import Tensor

from node.model.ops.gpu import attention_kernels as kernels
from node.model.ops.gpu import row_kernels
from node.model.ops.parts import Session
from swarm.errors import LocalProtocolError
from swarm.pages import PAGE

_BLOCK = 64
"""Positions that a program reads at a time; a page has whole blocks."""

_TILE_LANES = 64
"""Rows times query heads of a tile of a prompt."""

_ALIGNED = 2
"""Each part of what tells places begins at a multiple of so many: Triton compiles anew for other alignments."""

_FEW_LANES = 16
_LEAST_SIDE = 16
"""Of tiles that a GPU multiplies."""

_MAX_SPLITS = 32
_PROGRAMS_EACH = 2
"""Programs for each of a device's multiprocessors that keep its memory busy."""


class Rows:
    """The rows that go through the layers together: their sessions' positions and pages, on the device.

    rotations: complex64 (P, 1, hd / 2), of every position. of: whose pages the addresses are of. is_row_by_row: every
    row is a tile of its own, so that only the values of the tensors depend on whose rows they are.
    """

    __slots__ = ("_starts", "_where", "is_row_by_row", "most_keys", "n_rows", "n_tiles", "of", "rotations", "window")

    def __init__(
        self,
        sessions: Sequence[Session],
        rotations: Tensor,
        group: int,
        *,
        is_row_by_row: bool = False,
        into: Tensor | None = None,
    ) -> None:
        """group: query heads that share a KV head. into: int64, where these rows' places are put; else a new tensor.

        Raises: LocalProtocolError when `into` is too short.
        """
        self.of = sessions
        self.rotations = torch.view_as_real(rotations)  # (P, 1, hd / 2, 2)
        self.n_rows = sum(session.n_rows for session in sessions)
        self.window = sessions[0].window
        self.is_row_by_row = is_row_by_row
        self.most_keys = max(s.position + s.n_rows - s.first_page * PAGE for s in sessions)
        most_rows = 1 if is_row_by_row else lanes(group, max(s.n_rows for s in sessions)) // group
        positions: list[int] = []
        tables: list[int] = []
        tile_rows: list[int] = []
        tile_sizes: list[int] = []
        pages: list[int] = []
        for session in sessions:
            row, end = len(positions), len(positions) + session.n_rows
            positions += range(session.position, session.position + session.n_rows)
            tables += [len(pages) - session.first_page] * session.n_rows
            tile_rows += range(row, end, most_rows)
            tile_sizes += [min(most_rows, end - first) for first in range(row, end, most_rows)]
            pages += [page.data_ptr() for page in session.pages]
        self.n_tiles = len(tile_rows)
        parts = [part + [0] * (-len(part) % _ALIGNED) for part in (positions, tables, tile_rows, tile_sizes)]
        self._starts = list(itertools.accumulate(map(len, parts), initial=0))
        # Memory that is pinned is copied without waiting for what the device does.
        where = torch.tensor(list(itertools.chain(*parts, pages)), pin_memory=rotations.device.type == "cuda")
        if into is None:
            self._where = where.to(rotations.device, non_blocking=True)
        else:
            if len(where) > len(into):
                raise LocalProtocolError(f"{len(pages)} pages do not fit where {len(into)} numbers do")
            into[: len(where)].copy_(where, non_blocking=True)
            self._where = into

    @property
    def positions(self) -> Tensor:
        return self._where

    @property
    def tables(self) -> Tensor:
        return self._where[self._starts[1] :]

    @property
    def tile_rows(self) -> Tensor:
        return self._where[self._starts[2] :]

    @property
    def tile_sizes(self) -> Tensor:
        return self._where[self._starts[3] :]

    @property
    def pages(self) -> Tensor:
        return self._where[self._starts[4] :]


def lanes(group: int, n_rows: int) -> int:
    """Rows times query heads of one tile, for sessions of n_rows at most."""
    if group * n_rows <= _FEW_LANES:
        return _FEW_LANES
    return max(_TILE_LANES, triton.next_power_of_2(group))


def rotate_and_write(qkv: Tensor, rows: Rows, n_heads: int, n_kv_heads: int, head_dim: int, nth: int) -> Tensor:
    """qkv (T, H + 2 KVH, hd) -> its queries (T, H, hd), rotated and scaled; keys and values go to their pages.

    nth: which of the layers that share a page this one is.
    """
    xq = torch.empty(rows.n_rows, n_heads, head_dim, dtype=qkv.dtype, device=qkv.device)
    row_kernels.rotate_and_write[(rows.n_rows, n_heads + 2 * n_kv_heads)](
        qkv, rows.rotations, rows.tables, rows.positions, rows.pages, xq,
        _values_before(nth, n_kv_heads, head_dim), head_dim**-0.5, n_heads, n_kv_heads,
        head_dim, triton.next_power_of_2(head_dim // 2), PAGE, enable_fp_fusion=True, num_warps=1,
    )  # fmt: skip
    return xq


def attend(xq: Tensor, rows: Rows, n_kv_heads: int, nth: int) -> Tensor:
    """xq (T, H, hd), rotated and scaled -> (T, H * hd): each row over what it sees of its session, itself included."""
    n_rows, n_heads, head_dim = xq.shape
    group = n_heads // n_kv_heads
    n_lanes = max(_FEW_LANES, triton.next_power_of_2(group)) if rows.is_row_by_row else _lanes_of(rows, group)
    n_splits = _n_splits(rows, n_kv_heads, xq.device)
    out = torch.empty(n_rows, n_heads * head_dim, dtype=xq.dtype, device=xq.device)
    sums, maxima, totals = out, out, out
    if n_splits > 1:
        sums = torch.empty(n_splits, n_rows, n_heads, head_dim, device=xq.device)
        maxima, totals = torch.empty(2, n_splits, n_rows, n_heads, device=xq.device)
    padded = padded_head(head_dim)
    kernels.attend[(rows.n_tiles, n_kv_heads, n_splits)](
        xq, rows.tile_rows, rows.tile_sizes, rows.tables, rows.positions, rows.pages, out, sums, maxima, totals,
        _values_before(nth, n_kv_heads, head_dim), n_heads, n_kv_heads, rows.window or 0, n_rows,
        n_splits, group, head_dim, padded, PAGE, n_lanes, _BLOCK, n_splits > 1, rows.window is not None,
        enable_fp_fusion=True, num_warps=4, num_stages=3,
    )  # fmt: skip
    if n_splits > 1:
        kernels.put_together[(n_rows * n_heads,)](
            sums,
            maxima,
            totals,
            out,
            n_rows * n_heads,
            n_splits,
            head_dim,
            padded,
            _MAX_SPLITS,
            enable_fp_fusion=True,
            num_warps=4,
        )
    return out


def padded_head(head_dim: int) -> int:
    """Of a tile of keys: as many numbers as a program has for a head."""
    return int(max(_LEAST_SIDE, triton.next_power_of_2(head_dim)))


def _lanes_of(rows: Rows, group: int) -> int:
    return lanes(group, max(session.n_rows for session in rows.of))


def _n_splits(rows: Rows, n_kv_heads: int, device: torch.device) -> int:
    """Among how many programs the positions of a tile are shared out."""
    n_programs = rows.n_tiles * n_kv_heads
    wanted = -(-_PROGRAMS_EACH * n_multiprocessors(device) // n_programs)
    if not rows.is_row_by_row:
        if n_programs >= n_multiprocessors(device):
            return 1
        wanted = min(wanted, -(-rows.most_keys // _BLOCK))
    return int(min(_MAX_SPLITS, triton.next_power_of_2(max(1, wanted))))


def _values_before(nth: int, n_kv_heads: int, head_dim: int) -> int:
    return nth * 2 * n_kv_heads * PAGE * head_dim


@cache
def n_multiprocessors(device: torch.device) -> int:
    if device.type != "cuda":
        return 1
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
