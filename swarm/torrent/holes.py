"""Give the disk back what some pieces took, leaving the files as long as they are and every other byte untouched."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Collection
from pathlib import Path

from swarm.errors import BadArgument
from swarm.torrent.local import disk_error
from swarm.torrent.metainfo import Torrent

_KEEP_SIZE_AND_PUNCH = 0x01 | 0x02  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, linux/falloc.h


def punch(torrent: Torrent, save_dir: Path, pieces: Collection[int]) -> None:
    """Turn the bytes of these pieces into holes, which read as zeros. Blocks.

    Raises: BadArgument where the system or file system has no holes; TransferError.
    """
    for entry in torrent.files:
        if entry.is_pad or not entry.size_bytes:
            continue
        runs = _runs(torrent, entry.path, pieces)
        path = torrent.path_in(save_dir, entry.path)
        if runs and path.exists():
            _punch_file(path, runs)


def _runs(torrent: Torrent, file: str, pieces: Collection[int]) -> list[tuple[int, int]]:
    """[start, end) in the file of each unbroken run of these pieces."""
    entry = torrent.entry(file)
    runs: list[tuple[int, int]] = []
    for piece in torrent.pieces_of(file):
        if piece not in pieces:
            continue
        start = max(0, piece * torrent.piece_size - entry.offset)
        end = min(entry.size_bytes, (piece + 1) * torrent.piece_size - entry.offset)
        if runs and runs[-1][1] == start:
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((start, end))
    return runs


def _punch_file(path: Path, runs: list[tuple[int, int]]) -> None:
    fallocate = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
    if fallocate is None:
        raise BadArgument("this system cannot make holes in files; leave --disk out, or delete the content folder")
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    try:
        for start, end in runs:
            if fallocate(descriptor, _KEEP_SIZE_AND_PUNCH, start, end - start):
                code = ctypes.get_errno()
                if code == errno.EOPNOTSUPP:
                    raise BadArgument(f"{path} is on a file system without holes; leave --disk out")
                raise disk_error(path, os.strerror(code), code)
        os.utime(descriptor)  # so that no older resume file is believed about this one
    finally:
        os.close(descriptor)
