"""What the release verbs share: hashing a folder into a torrent, and where that torrent's file lies."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from swarm.cli.console import ProgressMeter
from swarm.cli.links import read_magnet
from swarm.errors import CorruptRelease, MagnetError
from swarm.terms import counted

if TYPE_CHECKING:
    from swarm.torrent import Magnet, Torrent


def torrent_path(folder: Path) -> Path:
    """NAME.torrent beside the folder NAME."""
    return folder.parent / f"{folder.name}.torrent"


def writable_torrent_path(folder: Path) -> Path:
    """NAME.torrent beside the folder, or in this user's cache where nothing may be written beside it."""
    beside = torrent_path(folder)
    if os.access(folder.parent, os.W_OK):
        return beside
    return cached_torrent_path(folder)


def cached_torrent_path(folder: Path) -> Path:
    """NAME.torrent in this user's cache, whose folder is made when missing."""
    from platformdirs import user_cache_path

    return user_cache_path("mistral-swarm", ensure_exists=True) / f"{folder.name}.torrent"


def path_or_magnet(source: str) -> Path | Magnet:
    """The folder or file that `source` names, else the link that it is or stands for, its repairs told on stderr.

    Raises: MagnetError.
    """
    from swarm.torrent import is_magnet_link

    path = Path(source)
    if source and not is_magnet_link(source) and path.exists():  # a link may be longer than a name on disk
        return path
    try:
        return read_magnet(source)
    except MagnetError as error:
        where = "" if is_magnet_link(source) else f"there is no folder or file {source!r} here, and "
        raise MagnetError(f"{where}{error.message}") from None


def hash_folder(
    folder: Path,
    piece_size: int | None = None,
    trackers: Sequence[str] = (),
    web_seeds: Sequence[str] = (),
    *,
    hybrid: bool = False,
) -> Torrent:
    """The torrent of `folder`, with progress on stderr. piece_size None: default_piece_size.

    hybrid: v2 hashes (SHA-256) beside v1's.
    """
    from swarm.torrent import create_torrent

    if piece_size is None:
        piece_size = default_piece_size(folder)
    with ProgressMeter(f"hashing {folder.name}", show=lambda n: counted(round(n), "piece")) as meter:
        return create_torrent(
            folder,
            piece_size=piece_size,
            trackers=tuple(trackers),
            web_seeds=tuple(web_seeds),
            hybrid=hybrid,
            progress=lambda done, total: meter.update(done, total=total),
        )


def default_piece_size(folder: Path) -> int:
    """What `release create` takes for this folder: by its total size and its layout. Raises: ReleaseError."""
    from swarm.release import choose_weight_files, list_folder, pick_piece_size

    files = list_folder(folder)
    return pick_piece_size(sum(files.values()), choose_weight_files(files).format)


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that no reader ever sees half of it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def reusable_torrent(folder: Path, path: Path | None = None) -> Torrent | None:
    """The torrent at path (default: NAME.torrent beside the folder) when it lists exactly the folder's files, else
    None.

    Does NOT hash: seeding does that, and says when the bytes are not the same.
    """
    from swarm.release import list_folder
    from swarm.torrent import Torrent

    path = path or torrent_path(folder)
    if not path.is_file():
        return None
    try:
        torrent = Torrent.load(path)
    except CorruptRelease:
        return None
    return torrent if torrent.name == folder.name and torrent.sizes == list_folder(folder) else None
