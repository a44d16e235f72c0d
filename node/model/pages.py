"""Pages of keys and values: the memory that sessions' caches are made of, under one budget.

A page holds PAGE positions of the layers that share a window; decode reads whole pages. It is held by every cache that
reads it; whoever wants to write into a page that others hold writes into a copy. A page that is filed under a key and
that nobody holds stays for the next session that begins with the same tokens, until the budget wants its memory.

One thread at a time may take and give back pages of a pool (the pool locks); the values in a page belong to the thread
that computes. Knows no attention and no token ids: a key is any hashable value.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Hashable

import torch

from node.model.page_memory import IS_HERE, MEMORY
from swarm.errors import StageFull
from swarm.pages import PAGE

MAX_FREE_PAGES = 16
"""Pages kept for the next session rather than given back to the system."""

Shape = tuple[int, int, int, torch.dtype, torch.device]
"""(layers, KV heads, head_dim, dtype, device) of a page."""


class Page:
    """keys[i], values[i]: (n_kv_heads, PAGE, head_dim) of the i-th layer of its group. Unwritten rows are finite."""

    __slots__ = ("filed_as", "keys", "n_holders", "shape", "tensor", "values")

    def __init__(self, shape: Shape) -> None:
        n_layers, n_kv_heads, head_dim, dtype, device = shape
        self.shape = shape
        self.tensor = _zeros((n_layers, 2, n_kv_heads, PAGE, head_dim), dtype, device)
        self.keys = [self.tensor[i, 0] for i in range(n_layers)]
        self.values = [self.tensor[i, 1] for i in range(n_layers)]
        self.n_holders = 1
        self.filed_as: Hashable | None = None

    @property
    def size_bytes(self) -> int:
        return self.tensor.nbytes


def _zeros(sizes: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    if device.type != "cpu" or not IS_HERE:
        return torch.zeros(sizes, dtype=dtype, device=device)
    return MEMORY.take(math.prod(sizes) * dtype.itemsize).view(dtype).view(sizes)


def page_bytes(shape: Shape) -> int:
    n_layers, n_kv_heads, head_dim, dtype, _ = shape
    return n_layers * 2 * n_kv_heads * PAGE * head_dim * dtype.itemsize


class PagePool:
    """budget_bytes: the most memory that all its pages take together; None: no bound."""

    def __init__(self, budget_bytes: int | None = None) -> None:
        self._budget_bytes = budget_bytes
        self._lock = threading.Lock()
        self._free: dict[Shape, list[Page]] = {}
        self._filed: dict[Hashable, tuple[Page, ...]] = {}
        self._idle: OrderedDict[Hashable, None] = OrderedDict()  # filed, some page held by nobody; oldest first
        self._size_bytes = 0
        self._held_bytes = 0

    @property
    def size_bytes(self) -> int:
        """Memory of all pages: held, filed and free."""
        return self._size_bytes

    @property
    def held_bytes(self) -> int:
        """Memory of the pages that some cache reads. The others give way to whoever takes a page."""
        return self._held_bytes

    @property
    def n_filed(self) -> int:
        return len(self._filed)

    def take(self, shape: Shape) -> Page:
        """A page of one's own, all of whose rows are finite. Raises: StageFull when the budget is spent."""
        with self._lock:
            free = self._free.get(shape)
            if free:
                self._held_bytes += page_bytes(shape)
                page = free.pop()
                page.tensor.zero_()  # another session's rows, which may not even be finite, are nobody's business
                page.n_holders = 1
                return page
            self._make_room(page_bytes(shape))
            page = Page(shape)
            self._size_bytes += page.size_bytes
            self._held_bytes += page.size_bytes
            return page

    def release(self, page: Page) -> None:
        """One cache less reads this page."""
        with self._lock:
            page.n_holders -= 1
            if page.n_holders:
                return
            self._held_bytes -= page.size_bytes
            key = page.filed_as
            if key is None:
                self._drop(page)
            else:
                self._idle[key] = None

    def own(self, page: Page) -> Page:
        """The same values in a page that its one holder may write into: this one, no longer filed, where nobody else
        holds it, else a copy in its place. Raises: StageFull.
        """
        with self._lock:
            if page.n_holders == 1:
                if page.filed_as is not None:
                    self._unfile(page.filed_as)
                return page
        mine = self.take(page.shape)
        mine.tensor.copy_(page.tensor)
        self.release(page)
        return mine

    def file(self, key: Hashable, pages: tuple[Page, ...]) -> None:
        """Let others find these pages, which together hold one stretch of positions in all layers.

        Does nothing when the key, or one of the pages, is filed already.
        """
        with self._lock:
            if key in self._filed or any(page.filed_as is not None for page in pages):
                return
            for page in pages:
                page.filed_as = key
            self._filed[key] = pages

    def find(self, key: Hashable) -> tuple[Page, ...] | None:
        """The pages filed under key, held for the caller; None when there are none."""
        with self._lock:
            pages = self._filed.get(key)
            if pages is not None:
                for page in pages:
                    self._hold(page)
            return pages

    def _hold(self, page: Page) -> None:
        self._held_bytes += 0 if page.n_holders else page.size_bytes
        page.n_holders += 1
        key = page.filed_as
        if key is not None and all(p.n_holders for p in self._filed[key]):
            self._idle.pop(key, None)

    def _make_room(self, size_bytes: int) -> None:
        if self._budget_bytes is None:
            return
        while self._size_bytes + size_bytes > self._budget_bytes:
            stock = next((pages for pages in self._free.values() if pages), None)
            if stock is not None:
                self._size_bytes -= stock.pop().size_bytes
            elif self._idle:
                self._unfile(next(iter(self._idle)))
            else:
                raise StageFull(
                    f"the KV caches take {self._size_bytes} bytes of the {self._budget_bytes} they may: try later, "
                    "or raise the node's --cache-budget"
                )

    def _unfile(self, key: Hashable) -> None:
        """Nobody finds these pages any more, and those that nobody holds are gone."""
        self._idle.pop(key, None)
        for page in self._filed.pop(key):
            page.filed_as = None
            if page.n_holders == 0:
                self._size_bytes -= page.size_bytes

    def _drop(self, page: Page) -> None:
        free = self._free.setdefault(page.shape, [])
        if len(free) < MAX_FREE_PAGES:
            free.append(page)
        else:
            self._size_bytes -= page.size_bytes
