"""A torrent's files in a local folder: are they there, which are at fault. Hashes nothing."""

from __future__ import annotations

import errno
import shutil
import sys
from collections.abc import Collection, Iterable
from pathlib import Path

from swarm.errors import BadArgument, DiskFull, TransferError, VerificationError
from swarm.torrent.metainfo import Torrent

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def disk_error(path: Path, reason: str | None, code: int | None) -> TransferError:
    """What to raise after a failed file operation: DiskFull, or TransferError for any other trouble."""
    if code in _FULL:
        return DiskFull(
            f"{path} cannot grow: {reason}. Free space there, or save to another disk, and run again: what has been "
            "fetched is kept"
        )
    return TransferError(f"{path} cannot be read or written: {reason}. Mend that and run again")


def free_bytes(folder: Path) -> int:
    """Room left for us on the folder's disk; a folder that is gone counts as roomy: its error is another."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return sys.maxsize


def make_folder(path: Path) -> Path:
    """The folder, absolute, made when it was missing. Raises: BadArgument."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadArgument(f"{path} cannot be made: {error.strerror}; choose another folder") from error
    return path.absolute()


def make_empty_files(torrent: Torrent, save_dir: Path) -> None:
    """Create the torrent's files of zero bytes, which no piece carries. Raises: DiskFull, TransferError."""
    for entry in torrent.files:
        if entry.size_bytes == 0 and not entry.is_pad:
            path = torrent.path_in(save_dir, entry.path)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            except OSError as error:
                raise disk_error(path, error.strerror, error.errno) from error


def check_sizes(torrent: Torrent, parent_dir: Path) -> Path:
    """The folder, absolute, when every file is there with the right size. Raises: VerificationError."""
    parent_dir = parent_dir.absolute()
    for entry in torrent.files:
        if entry.is_pad:
            continue
        path = torrent.path_in(parent_dir, entry.path)
        try:
            size_bytes = path.stat().st_size
        except OSError as error:
            raise VerificationError(
                f"{path} cannot be seeded: {error.strerror}; torrent {torrent.name!r} contains it. Fetch it again"
            ) from error
        if size_bytes != entry.size_bytes:
            raise VerificationError(
                f"{path} has {size_bytes} bytes where the torrent says {entry.size_bytes}; fetch the release again"
            )
    return parent_dir


def differs(torrent: Torrent, parent_dir: Path, pieces: Collection[int]) -> VerificationError:
    """What to raise where these pieces of a folder that should be seeded are not what the torrent says."""
    return VerificationError(
        f"{parent_dir / torrent.name} is not what torrent {torrent.infohash} says: {len(pieces)} of {torrent.n_pieces} "
        f"pieces differ, in {', '.join(files_with(torrent, pieces))}. Fetch it again with its magnet link, into "
        "another folder"
    )


def files_with(torrent: Torrent, pieces: Iterable[int], most: int = 8) -> list[str]:
    """The first few files that have bytes in any of these pieces."""
    bad = set(pieces)
    entries = (entry for entry in torrent.files if not entry.is_pad)
    return [entry.path for entry in entries if not bad.isdisjoint(torrent.pieces_of(entry.path))][:most]
