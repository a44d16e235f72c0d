"""The memory of a device when there is none left, and when some is no longer needed."""

from __future__ import annotations

import threading

import torch

RECORDING = threading.Lock()
"""Held while a graph is recorded: meanwhile torch gives nothing back to a GPU, and may fail where it is asked to."""

_WORDS = ("DefaultCPUAllocator", "out of memory", "ALLOC_FAILED")
"""Of torch's CPU allocator; of CUDA where not torch's allocator but a graph, a kernel or pinned memory lacked some; of
the libraries that multiply. All of these are a RuntimeError of no kind of its own."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether there was no memory: of a device, of torch's CPU allocator (which says so in words only) or of Python."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)


def give_back_device_memory() -> None:
    """What was freed of a GPU's memory, to the GPU, where other nodes may want it."""
    if torch.cuda.is_initialized():
        with RECORDING:
            torch.cuda.empty_cache()
