"""Weights that are no numbers: a NaN or an infinity in one tensor makes all answers nonsense, and nothing says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from swarm.release.args import STORED_DTYPES
from swarm.release.layout import ReleaseLayout
from swarm.release.ranges import ByteRange, TensorRange

CHUNK_BYTES = 4 << 20

# The bits of the exponent: all set in NaN and infinity, and in nothing else (IEEE 754).
_EXPONENTS = {"bf16": 0x7F80, "fp16": 0x7C00, "fp32": 0x7F800000}


def count_unusable(data: bytes, dtype: str) -> int:
    """How many of these little-endian values are NaN or infinite."""
    exponent = _EXPONENTS[dtype]
    bits = np.frombuffer(data, "<u4" if STORED_DTYPES[dtype] == 4 else "<u2")
    return int(np.count_nonzero((bits & exponent) == exponent))


def find_unusable(layout: ReleaseLayout, read: Callable[[ByteRange], bytes]) -> Iterator[tuple[str, int, int]]:
    """(tensor's name, its NaN and infinite values, bytes read) for every tensor, 4 MiB in memory at once."""
    for name, tensor in layout.tensors.items():
        yield name, sum(count_unusable(read(chunk), tensor.dtype) for chunk in _chunks(tensor)), tensor.size_bytes


def _chunks(tensor: TensorRange) -> Iterator[ByteRange]:
    whole = tensor.byte_range
    for at in range(whole.offset, whole.end, CHUNK_BYTES):
        yield ByteRange(whole.file, at, min(CHUNK_BYTES, whole.end - at))
