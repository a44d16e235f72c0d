"""The limit of decoding: how fast one thread, or a GPU, reads its memory, with nothing but what we depend on.

A step cannot be faster than its bytes can be read. A loop in C over the same memory, with vector loads from four
streams, read no faster where both were tried: the best of these is the machine's limit, not a share of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from benchmarks.engine import wait_for
from benchmarks.fastest import fastest

_READS_ON_A_GPU = 16
"""Launched one behind the other: one takes less time than it is in telling."""

BUFFER_BYTES = 1 << 30
"""More than caches hold, where they are not shared with a whole rack."""


class MemoryRead:
    """Reads one buffer from end to end, in the way that is fastest here; set torch's threads before."""

    def __init__(self, buffer_bytes: int = BUFFER_BYTES, device: torch.device | str = "cpu") -> None:
        self._buffer = torch.ones(buffer_bytes // 4, device=device)
        self.way = fastest({name: partial(self._rate, read) for name, read in _WAYS.items()})

    async def tokens_per_s(self, n_bytes: int) -> float:
        """One turn: steps a second, if each reads n_bytes and does nothing else."""
        return self._rate(_WAYS[self.way]) * 1e9 / n_bytes

    def _rate(self, read: Callable[[Tensor], Tensor]) -> float:
        with torch.inference_mode():
            n_reads = 1 if self._buffer.device.type == "cpu" else _READS_ON_A_GPU
            started_s = time.perf_counter()
            for _ in range(n_reads):
                read(self._buffer)
            wait_for(self._buffer.device)
            return n_reads * self._buffer.nbytes / (time.perf_counter() - started_s) / 1e9


_WAYS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "torch.dot": lambda values: torch.dot(values, values),
    "torch.linalg.vector_norm": torch.linalg.vector_norm,
    "torch.sum": torch.sum,
    "torch.mv": lambda values: torch.mv(values.view(-1, 1 << 14), values[: 1 << 14]),
    "torch.amax": torch.amax,
}
