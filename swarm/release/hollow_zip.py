"""torch.save's archive of a dict of tensors without the tensors: the bytes of its directory, its pickle, its headers.

Laid out as torch writes it: data.pkl, then a stored entry for each tensor in turn, each aligned to 64 bytes. What torch
adds beside (versions, data descriptors) is a few hundred bytes and left out. Source: PKWARE's APPNOTE 6.3; pickle's
protocol 2.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping

from swarm.release.args import STORED_DTYPES

_ALIGNMENT = 64
_PADDING_FIELD = 0x4246  # "FB", as torch names its extra field
_NARROW = 0xFFFFFFFF
_STORAGES = {"bf16": "BFloat16Storage", "fp16": "HalfStorage", "fp32": "FloatStorage"}


def hollow_archive(shapes: Mapping[str, tuple[int, ...]], dtype: str, root: str) -> tuple[dict[int, bytes], int]:
    """The parts of the file that are not tensors, by their offsets, and the file's whole size."""
    parts: dict[int, bytes] = {}
    directory: list[bytes] = []
    pickled = _pickle_of(shapes, dtype)
    at = _add_entry(parts, directory, 0, f"{root}/data.pkl", len(pickled))
    parts[at - len(pickled)] = pickled
    for i, shape in enumerate(shapes.values()):
        at = _add_entry(parts, directory, at, f"{root}/data/{i}", math.prod(shape) * STORED_DTYPES[dtype])
    ending = b"".join(directory)
    n_entries, size, end64_at = len(directory), len(ending), at + len(ending)
    ending += struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, n_entries, n_entries, size, at)
    ending += struct.pack("<4sIQI", b"PK\x06\x07", 0, end64_at, 1)
    ending += struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, n_entries, n_entries, size, min(at, _NARROW), 0)
    parts[at] = ending
    return parts, at + len(ending)


def _add_entry(parts: dict[int, bytes], directory: list[bytes], at: int, name: str, size: int) -> int:
    """A stored entry whose local header is at `at`; returns where its data ends."""
    raw = name.encode()
    n_padding = -(at + 30 + len(raw) + 4) % _ALIGNMENT
    extra = struct.pack("<2H", _PADDING_FIELD, n_padding) + bytes(n_padding)
    fields = (0, 0, 0, 0, 0, size, size, len(raw))  # flags, method, time, date, checksum, both sizes, name
    parts[at] = struct.pack("<4s5H3I2H", b"PK\x03\x04", 45, *fields, len(extra)) + raw + extra
    wide = struct.pack("<2HQ", 1, 8, at) if at >= _NARROW else b""
    directory.append(
        struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 45, 45, *fields, len(wide), 0, 0, 0, 0, min(at, _NARROW)) + raw + wide
    )
    return at + len(parts[at]) + size


def _pickle_of(shapes: Mapping[str, tuple[int, ...]], dtype: str) -> bytes:
    """{name: a contiguous tensor in a storage of its own}, as opcodes of protocol 2."""
    items = []
    for i, (name, shape) in enumerate(shapes.items()):
        strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
        storage = (
            b"(" + _text("storage") + f"ctorch\n{_STORAGES[dtype]}\n".encode() + _text(str(i)) + _text("cpu")
        ) + _number(math.prod(shape))
        view = storage + b"tQK\x00" + _tuple_of(shape) + _tuple_of(strides)
        items.append(
            _text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + view + b"\x89ccollections\nOrderedDict\n)RtR"
        )
    return b"\x80\x02}(" + b"".join(items) + b"u."


def _text(text: str) -> bytes:
    raw = text.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def _number(value: int) -> bytes:
    if value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x08" + struct.pack("<q", value)


def _tuple_of(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(_number, values)) + b"t"
