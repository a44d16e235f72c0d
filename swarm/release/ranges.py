"""Where bytes are: a range of a file, and a tensor as one such range."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from swarm.release.args import STORED_DTYPES


@dataclass(frozen=True, slots=True, order=True)
class ByteRange:
    """Bytes [offset, offset + size_bytes) of a file, named by its path in the release ('/' between folders)."""

    file: str
    offset: int
    size_bytes: int

    @property
    def end(self) -> int:
        return self.offset + self.size_bytes


@dataclass(frozen=True, slots=True)
class TensorRange:
    """A tensor's bytes: row-major, little-endian, contiguous from offset. dtype: 'bf16', 'fp16' or 'fp32'.

    is_transposed: the bytes are those of the matrix's transpose; shape is the tensor's own, as the model wants it.
    sha256: what a publisher signed these bytes to be, checked by whoever loads them; "" where nobody did.
    """

    file: str
    offset: int
    dtype: str
    shape: tuple[int, ...]
    is_transposed: bool = False
    sha256: str = field(default="", compare=False)

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape of the bytes as they lie in the file."""
        return tuple(reversed(self.shape)) if self.is_transposed else self.shape

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * STORED_DTYPES[self.dtype]

    @property
    def byte_range(self) -> ByteRange:
        return ByteRange(self.file, self.offset, self.size_bytes)
