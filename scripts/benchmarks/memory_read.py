"""The limit of decoding: how fast one thread of this process reads memory, with nothing but what we depend on.

A step cannot be faster than its bytes can be read. Against a loop in C over the same memory (AVX-512 loads from four
streams, gcc -O3 -march=native), on a Xeon with AMX: 17.1 GB/s the loop on huge pages, 16.8 on small ones; torch.dot of
a float32 tensor with itself 18.6, its vector_norm 18.1, numpy's sum of float64 17.8, torch.sum of float32 16.9; sums of
integers and maxima 8 to 15. So the best of these is the machine's limit, not a share of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from benchmarks.fastest import fastest

BUFFER_BYTES = 1 << 30
"""More than caches hold, where they are not shared with a whole rack."""


class MemoryRead:
    """Reads one buffer from end to end, in the way that is fastest here; set torch's threads before."""

    def __init__(self, buffer_bytes: int = BUFFER_BYTES) -> None:
        self._buffer = torch.ones(buffer_bytes // 4)
        self.way = fastest({name: partial(self._rate, read) for name, read in _WAYS.items()})

    async def gb_per_s(self) -> float:
        """One turn."""
        return self._rate(_WAYS[self.way])

    async def tokens_per_s(self, n_bytes: int) -> float:
        """One turn: steps a second, if each reads n_bytes and does nothing else."""
        return self._rate(_WAYS[self.way]) * 1e9 / n_bytes

    def _rate(self, read: Callable[[Tensor], Tensor]) -> float:
        with torch.inference_mode():
            started_s = time.perf_counter()
            read(self._buffer)
            return self._buffer.nbytes / (time.perf_counter() - started_s) / 1e9


_WAYS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "torch.dot": lambda values: torch.dot(values, values),
    "torch.linalg.vector_norm": torch.linalg.vector_norm,
    "torch.sum": torch.sum,
    "torch.mv": lambda values: torch.mv(values.view(-1, 1 << 14), values[: 1 << 14]),
}
