"""Byte ranges of local files as tensors on a device."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from swarm.errors import CorruptRelease
from swarm.release import TensorRange

TORCH_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def load_tensors(
    ranges: Mapping[str, TensorRange], root: Path, *, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> dict[str, Tensor]:
    """The tensors of these ranges, by the same names, in dtype on device.

    Memory: the result, and one tensor more while it is converted (or turned, where it is stored transposed). Files may
    be sparse: no byte outside of the ranges is read.
    Bytes are read, not mapped: a file that shrinks under a running node is an error here, never a bus error in
    the middle of a product, and a later write to it cannot change weights that were verified.
    Raises: CorruptRelease when a file is missing, ends within a range, or has other bytes than were signed.
    """
    tensors: dict[str, Tensor] = {}
    in_file_order = sorted(ranges.items(), key=lambda item: (item[1].file, item[1].offset))
    file: BinaryIO | None = None
    opened = None
    try:
        for name, where in in_file_order:
            if file is None or opened != where.file:
                if file is not None:
                    file.close()
                file, opened = _open(root, where.file), where.file
            tensors[name] = _read(file, name, where).to(device, dtype)
    finally:
        if file is not None:
            file.close()
    return {name: tensors[name] for name in ranges}


def _open(root: Path, name: str) -> BinaryIO:
    try:
        return open(root / name, "rb", buffering=0)
    except FileNotFoundError:
        raise CorruptRelease(f"{root / name} does not exist; fetch the release again") from None


def _read(file: BinaryIO, name: str, where: TensorRange) -> Tensor:
    raw = torch.empty(where.size_bytes, dtype=torch.uint8)
    view = memoryview(raw.numpy().data)
    file.seek(where.offset)
    filled = 0
    while filled < len(view):
        n_read = file.readinto(view[filled:])  # type: ignore[attr-defined]
        if not n_read:
            raise CorruptRelease(
                f"{where.file} ends within {name}: {where.size_bytes} bytes were expected at {where.offset}, "
                f"{filled} are there; fetch the release again"
            )
        filled += n_read
    if where.sha256 and hashlib.sha256(view).hexdigest() != where.sha256:
        raise CorruptRelease(
            f"{name} in {where.file} is not what the release's publisher signed, though its pieces match the torrent; "
            "get the magnet link from the publisher again"
        )
    stored = raw.view(TORCH_DTYPES[where.dtype]).view(where.stored_shape)
    return stored.T.contiguous() if where.is_transposed else stored
