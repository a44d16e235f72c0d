"""Memory for packed weights that begins on huge pages and is made of them, where the system has any.

A matrix that is read from one end to the other turns a page every 2 MiB there instead of every 4 KiB: what a malloc
gives has small pages at both of its ends, which made products of a few MiB a tenth slower.
"""

from __future__ import annotations

import contextlib
import mmap
import threading
import weakref

import torch
from torch import Tensor

_HUGE_BYTES = 2 << 20
STRETCH_BYTES = 64 << 20
"""Asked for at a time, for small matrices together; what of it is never written takes no memory."""

_LINE_BYTES = 64
_COLLAPSE = 25
"""MADV_COLLAPSE of Linux 6.1: what was given in small pages, as where files fill the memory, is moved to huge ones."""


class Room:
    """take(n): uint8 (n,), on a line of the cache, zeros. What lies in one stretch is given back together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stretch: weakref.ref[mmap.mmap] | None = None
        self._start = self._begin = self._end = 0

    def take(self, n_bytes: int) -> Tensor:
        """Raises: MemoryError."""
        with self._lock:
            stretch = self._stretch() if self._stretch is not None else None
            if stretch is None or self._begin + n_bytes > self._end:
                stretch = self._open(n_bytes)
            taken = torch.frombuffer(stretch, dtype=torch.uint8, count=n_bytes, offset=self._begin)
            self._begin += -(-n_bytes // _LINE_BYTES) * _LINE_BYTES
            return taken

    def _open(self, n_bytes: int) -> mmap.mmap:
        """A new stretch; the one before it has been written by now."""
        if self._stretch is not None and (before := self._stretch()) is not None:
            with contextlib.suppress(OSError):  # no memory that is huge, or no such advice
                before.madvise(_COLLAPSE, self._start, (self._begin - self._start) // _HUGE_BYTES * _HUGE_BYTES)
        size = max(n_bytes, STRETCH_BYTES)
        stretch, self._start = open_stretch(size)
        self._begin, self._end = self._start, self._start + size
        self._stretch = weakref.ref(stretch)
        return stretch


def open_stretch(n_bytes: int) -> tuple[mmap.mmap, int]:
    """Zeros that take no memory before they are written, and where in them the first huge page begins, from which on
    there are n_bytes. Raises: MemoryError.
    """
    try:
        stretch = mmap.mmap(-1, n_bytes + _HUGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"there is no memory for another {n_bytes} bytes") from error
    with contextlib.suppress(OSError):  # a system without them
        stretch.madvise(mmap.MADV_HUGEPAGE)
    address = torch.frombuffer(stretch, dtype=torch.uint8, count=1).data_ptr()
    return stretch, -address % _HUGE_BYTES


ROOM = Room()
"""The process's: matrices are loaded one by one by whoever hosts them, and share its stretches."""
