"""The rows that go through the layers together: one chunk of each of several sessions, one behind the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from node.model.cache import KVCache, LayerGroup
from node.model.ops import native
from node.model.ops.parts import Session
from node.model.pages import PAGE
from node.model.rope import RopeTable


@dataclass(frozen=True, slots=True)
class Chunk:
    """n_rows of one session, which follow on the positions that its cache holds."""

    cache: KVCache
    n_rows: int

    @property
    def position(self) -> int:
        """Of the first row."""
        return self.cache.length


class Batch:
    """What the layers of one step share: whose rows are where, their rotations, and the masks.

    Row order: the chunks', one behind the other. q_rotations carry the scores' factor 1/sqrt(head_dim) too. The caches'
    lengths do not change while a batch goes through the layers.
    """

    def __init__(self, chunks: Sequence[Chunk], rope: RopeTable, head_dim: int, dtype: torch.dtype) -> None:
        self.chunks = chunks
        self.n_rows = sum(chunk.n_rows for chunk in chunks)
        self._rope = rope
        self._head_dim = head_dim
        self.dtype = dtype
        self._masks: dict[tuple[int, int, int, int, int | None], Tensor | None] = {}
        self._native_rows: dict[int | None, native.Rows] = {}

    @cached_property
    def k_rotations(self) -> Tensor:
        rotations = [self._rope.rotations(chunk.position, chunk.n_rows) for chunk in self.chunks]
        return rotations[0] if len(rotations) == 1 else torch.cat(rotations)

    @cached_property
    def q_rotations(self) -> Tensor:
        return self.k_rotations * self._head_dim**-0.5

    @property
    def rotations_by_position(self) -> Tensor:
        """Of every position up to the last row's at least, complex64 (P, 1, head_dim / 2)."""
        return self._rope.covering(max(chunk.position + chunk.n_rows for chunk in self.chunks))

    def sessions(self, groups: Sequence[LayerGroup]) -> list[Session]:
        """The chunks as our own kernels see them. groups: those of one layer in the chunks' caches."""
        return [_session(chunk, group) for chunk, group in zip(self.chunks, groups, strict=True)]

    def native_rows(self, groups: Sequence[LayerGroup]) -> native.Rows:
        """The same for our own kernels. groups: those of one layer in the chunks' caches, all with one window."""
        window = groups[0].window
        if window not in self._native_rows:
            rotations = self.q_rotations, self.k_rotations
            self._native_rows[window] = native.Rows(self.sessions(groups), rotations)
        return self._native_rows[window]

    def mask(self, position: int, n_rows: int, page: int, group: LayerGroup) -> Tensor | None:
        """(n_rows, PAGE): 0 where the row at position + t sees the page's position, else -inf; None if all see all."""
        key = (position, n_rows, page, PAGE, group.window)
        if key not in self._masks:
            self._masks[key] = self._built_mask(position, n_rows, page, group)
        return self._masks[key]

    def _built_mask(self, position: int, n_rows: int, page: int, group: LayerGroup) -> Tensor | None:
        first, end = page * PAGE, (page + 1) * PAGE
        if end <= position + 1 and group.first_visible(position + n_rows - 1) <= first:
            return None
        rows = torch.arange(position, position + n_rows)[:, None]  # (t, 1)
        keys = torch.arange(first, end)[None]  # (1, PAGE)
        hidden = keys > rows
        if group.window is not None:
            hidden |= keys <= rows - group.window
        mask = torch.zeros(n_rows, PAGE, dtype=self.dtype).masked_fill_(hidden, -torch.inf)
        return mask.to(self._rope.device)


def _session(chunk: Chunk, group: LayerGroup) -> Session:
    """The pages that the chunk's rows see and are written to."""
    first = group.first_visible(chunk.position) // PAGE
    last = (chunk.position + chunk.n_rows - 1) // PAGE
    pages = group.pages[first - group.first_page : last - group.first_page + 1]
    tensors = [page.tensor for page in pages]
    return Session(chunk.n_rows, chunk.position, group.window, first, tensors)
