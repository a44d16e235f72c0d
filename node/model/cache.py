"""The keys and values of one session, for the layers of one span, in pages, and the rows that came out of the last one.

Knows no session ids and no attention.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from node.model.pages import PAGE, Page, PagePool, Shape, page_bytes
from swarm.errors import ContextLengthExceeded, PositionMismatch, SessionLost
from swarm.release import ModelArgs
from swarm.terms import Span

REWIND_MARGIN = 256
"""Positions that a windowed layer keeps beyond its window, so that speculation can take back at least as many rows."""


class LayerGroup:
    """The layers of one window (None: they see everything): they write, keep and give up the same pages.

    Page i of `pages` holds positions from (first_page + i) * PAGE on.
    """

    __slots__ = ("first_page", "pages", "shape", "window")

    def __init__(self, window: int | None, shape: Shape) -> None:
        self.window = window
        self.shape = shape
        self.first_page = 0
        self.pages: list[Page] = []

    @property
    def start(self) -> int:
        """The first position that is kept."""
        return self.first_page * PAGE

    def first_visible(self, position: int) -> int:
        """The first position that a query at `position` sees: its window counts the query itself."""
        return 0 if self.window is None else max(0, position - self.window + 1)


class LayerCache:
    """One layer's view of its group: keys(i), values(i) are (n_kv_heads, PAGE, head_dim) of the group's i-th page."""

    __slots__ = ("group", "nth")

    def __init__(self, group: LayerGroup, nth: int) -> None:
        self.group = group
        self.nth = nth

    def keys(self, page_idx: int) -> Tensor:
        return self.group.pages[page_idx].keys[self.nth]

    def values(self, page_idx: int) -> Tensor:
        return self.group.pages[page_idx].values[self.nth]

    def write(self, position: int, xk: Tensor, xv: Tensor) -> None:
        """Put xk, xv (n_kv_heads, T, head_dim) at positions [position, position + T). Their pages are prepared."""
        offset = position - self.group.start
        row, n_rows = 0, xk.shape[1]
        while row < n_rows:
            page_idx, first = divmod(offset + row, PAGE)
            n = min(n_rows - row, PAGE - first)
            self.keys(page_idx)[:, first : first + n] = xk[:, row : row + n]
            self.values(page_idx)[:, first : first + n] = xv[:, row : row + n]
            row += n


class KVCache:
    """One session's KV cache over `span`. `length` positions are cached in each of its layers.

    max_positions: the most that it may ever hold (args.max_positions unless less is asked). Pages are taken as the
    session grows, so an unused maximum costs nothing; a windowed layer gives back the pages that neither its window nor
    REWIND_MARGIN can reach any more. pool: where pages come from; an own one without a bound by default. keeps_rows:
    the span's output rows are kept too, in pages of their own that are taken, shared and given back with the others.
    """

    def __init__(
        self,
        args: ModelArgs,
        span: Span,
        *,
        dtype: torch.dtype,
        device: torch.device | str,
        max_positions: int | None = None,
        pool: PagePool | None = None,
        keeps_rows: bool = False,
    ) -> None:
        self.span = span
        self.max_positions = min(max_positions or args.max_positions, args.max_positions)
        self._length = 0
        self._pool = PagePool() if pool is None else pool
        self._groups: list[LayerGroup] = []
        self._layers: dict[int, LayerCache] = {}
        for window, layer_idxs in _layers_by_window(args, span).items():
            shape = (len(layer_idxs), args.n_kv_heads, args.head_dim, dtype, torch.device(device))
            group = LayerGroup(window, shape)
            self._groups.append(group)
            self._layers.update((layer_idx, LayerCache(group, nth)) for nth, layer_idx in enumerate(layer_idxs))
        self._rows: LayerCache | None = None
        if keeps_rows:
            group = LayerGroup(None, _rows_shape(args, dtype, torch.device(device)))
            self._groups.append(group)
            self._rows = LayerCache(group, 0)

    @staticmethod
    def size_bytes_for(
        args: ModelArgs, span: Span, positions: int, dtype: torch.dtype, keeps_rows: bool = False
    ) -> int:
        """The most memory that a cache of so many positions takes: whole pages, in each layer of the span."""
        total = 0
        for window, layer_idxs in _layers_by_window(args, span).items():
            shape = (len(layer_idxs), args.n_kv_heads, args.head_dim, dtype, torch.device("cpu"))
            n_pages = -(-positions // PAGE)
            if window is not None:
                # What is kept of a window, the chunk that is being written, and a page cut at either end.
                n_pages = min(n_pages, -(-(window + REWIND_MARGIN + MAX_PREPARED_ROWS) // PAGE) + 2)
            total += n_pages * page_bytes(shape)
        if keeps_rows:
            total += -(-positions // PAGE) * page_bytes(_rows_shape(args, dtype, torch.device("cpu")))
        return total

    @property
    def length(self) -> int:
        """Positions cached: the next step's position, unless it rewinds."""
        return self._length

    @property
    def size_bytes(self) -> int:
        """Memory of the pages held now, those that are shared with other sessions included."""
        return sum(len(group.pages) * page_bytes(group.shape) for group in self._groups)

    def layer(self, layer_idx: int) -> LayerCache:
        return self._layers[layer_idx]

    def truncate(self, position: int) -> None:
        """Forget every position from `position` on, in O(pages forgotten) and without touching memory.

        Position 0 and anything within REWIND_MARGIN of the newest position always work, and so does everything while
        no windowed layer has given up a page.
        Raises: PositionMismatch when fewer positions are cached; SessionLost when a windowed layer has given up keys
        that a query at `position` must see.
        """
        if not 0 <= position <= self._length:
            raise PositionMismatch(
                f"the step starts at position {position}, but {self._length} positions are cached; "
                f"replay from position {self._length}"
            )
        if 0 < position < self._length and any(g.start > g.first_visible(position) for g in self._groups):
            raise SessionLost(
                f"the keys before position {position} have left a sliding window and are gone; replay from position 0"
            )
        if position < self._length:
            for group in self._groups:
                self._forget_pages_from(group, -(-position // PAGE))
        self._length = position

    def require_room(self, n_rows: int) -> None:
        """Raises: ContextLengthExceeded when n_rows more do not fit max_positions."""
        if self._length + n_rows > self.max_positions:
            raise ContextLengthExceeded(
                f"{self._length} cached positions and {n_rows} more exceed the session's {self.max_positions}; "
                "open a session with more positions, or shorten the prompt"
            )

    def prepare(self, n_rows: int) -> None:
        """Have pages of its own for the next n_rows positions. Raises: StageFull, and then nothing is lost."""
        first_page, end_page = self._length // PAGE, -(-(self._length + n_rows) // PAGE)
        for group in self._groups:
            for page in range(max(first_page, group.first_page), end_page):
                nth = page - group.first_page
                if nth == len(group.pages):
                    group.pages.append(self._pool.take(group.shape))
                else:
                    group.pages[nth] = self._pool.own(group.pages[nth])

    def advance(self, n_rows: int) -> None:
        """Count n_rows that every layer of a step has written, and give back what no window reaches any more."""
        self._length += n_rows
        for group in self._groups:
            if group.window is None:
                continue
            first_page = max(0, self._length - group.window - REWIND_MARGIN) // PAGE
            while group.first_page < first_page and group.pages:
                self._pool.release(group.pages.pop(0))
                group.first_page += 1

    def keep_rows(self, h: Tensor) -> None:
        """Keep h (T, D), what the span made of the newest T positions, if this cache keeps rows."""
        if self._rows is not None:
            first, last = h.chunk(2, dim=-1)
            self._rows.write(self._length - h.shape[0], first.unsqueeze(0), last.unsqueeze(0))

    def rows(self, start: int, end: int) -> Tensor:
        """A copy (end - start, D) of the rows of positions [start, end), all of which are cached."""
        assert self._rows is not None and 0 <= start < end <= self._length
        parts = []
        while start < end:
            page, first = divmod(start, PAGE)
            n = min(end - start, PAGE - first)
            halves = [half[0, first : first + n] for half in (self._rows.keys(page), self._rows.values(page))]
            parts.append(torch.cat(halves, dim=-1))
            start += n
        return torch.cat(parts)

    def adopt(self, pages: Sequence[tuple[Page, ...]]) -> None:
        """Begin with these pages, held for this cache by PagePool.find, one tuple a PAGE of positions."""
        assert self._length == 0
        for found in pages:
            for group, page in zip(self._groups, found, strict=True):
                group.pages.append(page)
        self._length = len(pages) * PAGE

    def file(self, page_idx: int, key: Hashable) -> None:
        """Let others find the page of positions [page_idx * PAGE, (page_idx + 1) * PAGE), if it is whole and kept."""
        if (page_idx + 1) * PAGE <= self._length and all(g.first_page <= page_idx for g in self._groups):
            self._pool.file(key, tuple(group.pages[page_idx - group.first_page] for group in self._groups))

    def clear(self) -> None:
        """Give every page back."""
        for group in self._groups:
            self._forget_pages_from(group, 0)
        self._length = 0

    def _forget_pages_from(self, group: LayerGroup, page: int) -> None:
        while group.pages and group.first_page + len(group.pages) > page:
            self._pool.release(group.pages.pop())
        if not group.pages:
            group.first_page = 0 if page == 0 else group.first_page


MAX_PREPARED_ROWS = 512
"""Rows of one chunk for which size_bytes_for leaves room in windowed layers."""


def _rows_shape(args: ModelArgs, dtype: torch.dtype, device: torch.device) -> Shape:
    """Of a page of output rows: the two halves of a row lie where a page of one layer has keys and values."""
    return (1, 1, args.dim // 2, dtype, device)


def _layers_by_window(args: ModelArgs, span: Span) -> dict[int | None, list[int]]:
    by_window: dict[int | None, list[int]] = {}
    for layer_idx in span:
        by_window.setdefault(args.windows[layer_idx], []).append(layer_idx)
    return by_window
