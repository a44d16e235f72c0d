"""Freed memory goes back to the system: packing leaves holes between packed weights that nothing else would fill."""

from __future__ import annotations

import ctypes

from node.model import give_back_device_memory


def give_back_freed_memory() -> None:
    """Return what was freed to the system, where the C library can (glibc); elsewhere it does so by itself, or not. And
    a GPU's to the GPU, where other nodes may want it.
    """
    give_back_device_memory()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
