"""The keys and values of one session, for the layers of one span. Knows no session ids and no attention."""

from __future__ import annotations

import torch
from torch import Tensor

from swarm.errors import ContextLengthExceeded, PositionMismatch, SessionLost
from swarm.release import ModelArgs
from swarm.terms import Span

PAGE = 256
"""Positions by which a buffer grows. A decode step reads whole pages; each growth copies the layer's buffer once."""

REWIND_MARGIN = 256
"""Positions that a windowed layer keeps beyond its window, so that speculation can take back at least as many rows."""


class LayerCache:
    """keys, values: (n_kv_heads, capacity, head_dim) contiguous. Row r holds position start + r.

    Capacity is a multiple of PAGE and never much more than what is cached: attention reads the whole buffer and masks
    the rest, since a slice of a larger buffer would be copied before every product. Unwritten rows are zeros, for a
    masked row must still be finite. A windowed layer drops, whenever its buffer grows, what neither its window nor
    REWIND_MARGIN can reach any more.
    """

    __slots__ = ("keys", "start", "values", "window")

    def __init__(self, keys: Tensor, values: Tensor, window: int | None) -> None:
        self.keys = keys
        self.values = values
        self.window = window
        self.start = 0

    @property
    def capacity(self) -> int:
        return self.keys.shape[1]

    def write(self, position: int, xk: Tensor, xv: Tensor) -> None:
        """Put xk, xv (T, n_kv_heads, head_dim) at positions [position, position + T), over whatever was there."""
        end = position + xk.shape[0]
        if end - self.start > self.capacity:
            self._make_room(position, end)
        rows = slice(position - self.start, end - self.start)
        self.keys[:, rows] = xk.transpose(0, 1)
        self.values[:, rows] = xv.transpose(0, 1)

    def can_rewind_to(self, position: int) -> bool:
        return self.start == 0 or (self.window is not None and position - self.window + 1 >= self.start)

    def _make_room(self, position: int, end: int) -> None:
        start = self.start
        if self.window is not None:
            start = max(start, (position - self.window - REWIND_MARGIN) // PAGE * PAGE)
        self.keys = _moved(self.keys, start - self.start, position - self.start, end - start)
        self.values = _moved(self.values, start - self.start, position - self.start, end - start)
        self.start = start


class KVCache:
    """One session's KV cache over `span`. `length` positions are cached in each of its layers.

    max_positions: the most that it may ever hold (args.max_positions unless less is asked). Memory is taken page by
    page as the session grows, so an unused maximum costs nothing.
    """

    def __init__(
        self,
        args: ModelArgs,
        span: Span,
        *,
        dtype: torch.dtype,
        device: torch.device | str,
        max_positions: int | None = None,
    ) -> None:
        self.span = span
        self.max_positions = min(max_positions or args.max_positions, args.max_positions)
        self._length = 0
        empty = torch.empty(args.n_kv_heads, 0, args.head_dim, dtype=dtype, device=device)
        self._layers = {layer_idx: LayerCache(empty, empty, args.windows[layer_idx]) for layer_idx in span}

    @staticmethod
    def size_bytes_for(args: ModelArgs, span: Span, positions: int, dtype: torch.dtype) -> int:
        """The most memory that a cache of so many positions takes: whole pages, in each layer of the span."""
        n_rows = -(-positions // PAGE) * PAGE
        return len(span) * n_rows * 2 * args.n_kv_heads * args.head_dim * dtype.itemsize

    @property
    def length(self) -> int:
        """Positions cached: the next step's position, unless it rewinds."""
        return self._length

    @property
    def size_bytes(self) -> int:
        """Memory held now, unwritten rows of the last page included."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self._layers.values())

    def layer(self, layer_idx: int) -> LayerCache:
        return self._layers[layer_idx]

    def truncate(self, position: int) -> None:
        """Forget every position from `position` on, in O(layers) and without touching memory.

        Position 0 and anything within REWIND_MARGIN of the newest position always work, and so does everything while
        no windowed layer has dropped a page.
        Raises: PositionMismatch when fewer positions are cached; SessionLost when a windowed layer has dropped keys
        that a query at `position` must see.
        """
        if not 0 <= position <= self._length:
            raise PositionMismatch(
                f"the step starts at position {position}, but {self._length} positions are cached; "
                f"replay from position {self._length}"
            )
        if position == 0:
            for layer in self._layers.values():
                layer.start = 0
        elif position < self._length and not all(layer.can_rewind_to(position) for layer in self._layers.values()):
            raise SessionLost(
                f"the keys before position {position} have left a sliding window and are gone; replay from position 0"
            )
        self._length = position

    def require_room(self, n_rows: int) -> None:
        """Raises: ContextLengthExceeded when n_rows more do not fit max_positions."""
        if self._length + n_rows > self.max_positions:
            raise ContextLengthExceeded(
                f"{self._length} cached positions and {n_rows} more exceed the session's {self.max_positions}; "
                "open a session with more positions, or shorten the prompt"
            )

    def advance(self, n_rows: int) -> None:
        """Count n_rows that every layer of a step has written."""
        self._length += n_rows


def _moved(buffer: Tensor, first_row: int, end_row: int, n_rows: int) -> Tensor:
    """Rows [first_row, end_row) of buffer at the head of a zeroed one with whole pages for n_rows."""
    n_heads, _, head_dim = buffer.shape
    n_pages = -(-n_rows // PAGE)
    moved = buffer.new_zeros(n_heads, n_pages * PAGE, head_dim)
    if end_row > first_row:
        moved[:, : end_row - first_row] = buffer[:, first_row:end_row]
    return moved
