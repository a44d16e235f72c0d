"""Memory for pages of keys and values, on huge pages where the system has any, and given back page by page.

A token reads all that is cached, of every layer in pieces of 64 KiB from here and there. On pages of 4 KiB a core has
to look up where they lie all the time, and its prefetchers stop at the end of each.
"""

from __future__ import annotations

import mmap
import threading
import weakref

import torch
from torch import Tensor

from node.model.ops.native.room import STRETCH_BYTES, open_stretch

IS_HERE = hasattr(mmap, "MADV_HUGEPAGE")
"""Linux."""


class PageMemory:
    """take(n): uint8 (n,), zeros. When no tensor holds it any more its memory is the system's again, its addresses are
    the next one's of that size.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: dict[int, list[tuple[mmap.mmap, int]]] = {}  # by size: places that nobody has
        self._stretch: mmap.mmap | None = None
        self._begin = self._end = 0

    def take(self, n_bytes: int) -> Tensor:
        """Raises: MemoryError."""
        size = -(-n_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        left = self._left.setdefault(size, [])
        try:
            stretch, begin = left.pop()
        except IndexError:
            with self._lock:
                stretch, begin = self._cut(size)
        taken = memoryview(stretch)[begin : begin + size]
        # Called when the tensor's memory is let go, by whichever thread and wherever that is: it takes no lock.
        weakref.finalize(taken, _give_back, stretch, begin, size, left).atexit = False
        return torch.frombuffer(taken, dtype=torch.uint8, count=n_bytes)

    def _cut(self, size: int) -> tuple[mmap.mmap, int]:
        if self._stretch is None or self._begin + size > self._end:
            n_bytes = max(size, STRETCH_BYTES)
            self._stretch, self._begin = open_stretch(n_bytes)
            self._end = self._begin + n_bytes
        begin = self._begin
        self._begin += size
        return self._stretch, begin


def _give_back(stretch: mmap.mmap, begin: int, size: int, left: list[tuple[mmap.mmap, int]]) -> None:
    stretch.madvise(mmap.MADV_DONTNEED, begin, size)
    left.append((stretch, begin))


MEMORY = PageMemory()
"""The process's."""
