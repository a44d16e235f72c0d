"""The room's only IO: a release in a local folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from swarm.errors import BadArgument, CorruptRelease
from swarm.release.files import MAX_LICENCE_BYTES, find_licence, licence_files
from swarm.release.layout import ReleaseLayout
from swarm.release.ranges import ByteRange
from swarm.release.reading import drive, read_layout
from swarm.terms import ExpertId, Span


def list_folder(folder: Path) -> dict[str, int]:
    """Path ('/' between folders) -> size of every file under folder, hidden ones left out. Raises: BadArgument."""
    if not folder.is_dir():
        raise BadArgument(f"{folder} is not a folder; name the folder that holds the release's files")
    sizes: dict[str, int] = {}
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if not name.startswith(".") and path.is_file():  # a link into a cache counts as its target
                sizes[path.relative_to(folder).as_posix()] = path.stat().st_size
    return sizes


def folder_licence(folder: Path) -> str | None:
    """What README or LICENSE in the folder state, whatever weights lie beside them."""
    texts = {}
    for name in licence_files(list_folder(folder)):
        with open(folder / name, "rb") as file:
            texts[name] = file.read(MAX_LICENCE_BYTES)
    return find_licence(texts)


def folder_reader(folder: Path) -> Callable[[ByteRange], bytes]:
    """Reads ranges of the folder's files. Raises: CorruptRelease for a file that ends within one; OSError."""

    def read(byte_range: ByteRange) -> bytes:
        with open(folder / byte_range.file, "rb") as file:
            file.seek(byte_range.offset)
            data = file.read(byte_range.size_bytes)
        if len(data) != byte_range.size_bytes:
            raise CorruptRelease(f"{folder / byte_range.file} shrank while it was read; try again once it is at rest")
        return data

    return read


def read_folder_layout(
    folder: Path, spans: Sequence[Span] | None = None, experts: Sequence[ExpertId] = ()
) -> ReleaseLayout:
    """The layout of a release on disk. Raises: BadArgument, CorruptRelease, UnsupportedArchitecture, OSError."""
    return drive(read_layout(list_folder(folder), spans, experts), folder_reader(folder))
