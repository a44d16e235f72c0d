"""Torrent files: making them from a folder, and reading what they say. Moves no data between machines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import libtorrent as lt

from swarm.errors import BadArgument, CorruptRelease
from swarm.terms import Address, Infohash
from swarm.torrent.magnet import Magnet


@dataclass(frozen=True, slots=True)
class TorrentEntry:
    """One file of a torrent: path below the torrent's root, and where it starts in the torrent's run of bytes."""

    path: str
    size_bytes: int
    offset: int
    is_pad: bool


class Torrent:
    """What a .torrent file says: the files, and the hashes of their pieces. Immutable.

    files: in torrent order. Pads (is_pad) are gaps of zeros that start each file on a piece of its own; they exist on
    no disk. data: the bencoded file as given.
    Raises: CorruptRelease when the bytes are not a torrent that we can fetch.
    """

    def __init__(self, data: bytes) -> None:
        try:
            params = lt.load_torrent_buffer(data)
        except (RuntimeError, TypeError, ValueError, OverflowError) as error:
            raise CorruptRelease(f"the torrent cannot be read: {error}; fetch it again from its publisher") from error
        info = params.ti
        if info is None or info.num_pieces() == 0 or info.total_size() == 0:
            raise CorruptRelease("the torrent names no data; fetch it again from its publisher")
        self.data = bytes(data)
        self.name: str = info.name()
        self.piece_size: int = info.piece_length()
        self.n_pieces: int = info.num_pieces()
        hashes = info.info_hashes()
        self.v1: str | None = str(hashes.v1) if hashes.has_v1() else None
        self.v2: str | None = str(hashes.v2) if hashes.has_v2() else None
        self.trackers: tuple[str, ...] = tuple(params.trackers)
        self.web_seeds: tuple[str, ...] = tuple(params.url_seeds)
        self._span_bytes: int = info.total_size()
        self._info = info
        self.files = self._read_files()
        self._by_path = {entry.path: entry for entry in self.files if not entry.is_pad}
        if len(self._by_path) != sum(not entry.is_pad for entry in self.files):
            raise CorruptRelease(f"torrent {self.name!r} names a file twice; fetch it again from its publisher")
        self._pads_by_piece = self._count_pads()

    @classmethod
    def load(cls, path: Path) -> Torrent:
        """Read a .torrent file. Raises: CorruptRelease, BadArgument when there is no such file."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BadArgument(f"{path} cannot be read: {error.strerror}; give the path of a .torrent file") from error
        return cls(data)

    @classmethod
    def from_info(cls, info_section: bytes) -> Torrent:
        """The torrent of a bare info dictionary, which is what peers send for a magnet link."""
        return cls(b"d4:info" + info_section + b"e")

    @property
    def infohash(self) -> Infohash:
        return Infohash(self.v1 if self.v1 is not None else (self.v2 or "")[:40])

    @property
    def sizes(self) -> dict[str, int]:
        """Path below the root -> bytes, in torrent order, without pads."""
        return {path: entry.size_bytes for path, entry in self._by_path.items()}

    @property
    def offsets(self) -> dict[str, int]:
        """Path below the root -> where the file begins among the torrent's bytes, in torrent order, without pads."""
        return {path: entry.offset for path, entry in self._by_path.items()}

    @property
    def total_bytes(self) -> int:
        """The files' sizes together, without pads."""
        return sum(self.sizes.values())

    @property
    def is_single_file(self) -> bool:
        """The torrent is one file that stands by itself, with no folder around it."""
        return (
            len(self._by_path) == 1
            and self.files[0].path == self.name
            and self._info.layout().file_path(0) == self.name
        )

    def magnet(self, peers: Sequence[Address] = ()) -> Magnet:
        return Magnet(self.v1, self.v2, self.name, self.trackers, self.web_seeds, tuple(peers))

    def entry(self, file: str) -> TorrentEntry:
        """The file with this path below the root. Raises: BadArgument."""
        try:
            return self._by_path[file]
        except KeyError:
            raise BadArgument(f"{file!r} is not a file of torrent {self.name!r}") from None

    def pieces_of(self, file: str, offset: int = 0, size_bytes: int | None = None) -> range:
        """The pieces that carry bytes [offset, offset + size_bytes) of a file. Raises: BadArgument outside of it."""
        entry = self.entry(file)
        size_bytes = entry.size_bytes - offset if size_bytes is None else size_bytes
        if offset < 0 or size_bytes < 0 or offset + size_bytes > entry.size_bytes:
            raise BadArgument(f"{file}: bytes {offset}+{size_bytes} are outside of its {entry.size_bytes} bytes")
        if size_bytes == 0:
            return range(0)
        start = entry.offset + offset
        return range(start // self.piece_size, (start + size_bytes - 1) // self.piece_size + 1)

    def piece_bytes(self, piece: int) -> int:
        """How many bytes of files (not pads) this piece carries."""
        end = min((piece + 1) * self.piece_size, self._span_bytes)
        return end - piece * self.piece_size - self._pads_by_piece.get(piece, 0)

    def bytes_in(self, pieces: Iterable[int]) -> int:
        """How many bytes of files these pieces carry together; each piece should be named once."""
        return sum(map(self.piece_bytes, pieces))

    def piece_hash(self, piece: int) -> bytes | None:
        """The piece's SHA-1, None in a torrent that has only v2 hashes."""
        return self._info.hash_for_piece(piece) if self.v1 is not None else None

    def root_in(self, save_dir: Path) -> Path:
        """The folder that the files' paths start from once the torrent is saved in save_dir."""
        return save_dir if self.is_single_file else save_dir / self.name

    def path_in(self, save_dir: Path, file: str) -> Path:
        """Where a file lies once the torrent is saved in save_dir. Raises: BadArgument for what is no file of it."""
        return self.root_in(save_dir) / self.entry(file).path

    def _read_files(self) -> tuple[TorrentEntry, ...]:
        layout = self._info.layout()
        entries = []
        for idx in range(layout.num_files()):
            # libtorrent has already neutralised absolute paths, `..` and NULs.
            path = PurePosixPath(layout.file_path(idx))
            inner = PurePosixPath(*path.parts[1:]) if len(path.parts) > 1 else path
            flags = layout.file_flags(idx)
            if flags & lt.file_storage.flag_symlink:
                raise CorruptRelease(
                    f"torrent {self.name!r} contains a symbolic link, {str(inner)!r}; a release has none"
                )
            is_pad = bool(flags & lt.file_storage.flag_pad_file)
            entries.append(TorrentEntry(str(inner), layout.file_size(idx), layout.file_offset(idx), is_pad))
        return tuple(entries)

    def _count_pads(self) -> dict[int, int]:
        pads: dict[int, int] = {}
        for entry in self.files:
            start, end = entry.offset, entry.offset + entry.size_bytes
            while entry.is_pad and start < end:
                piece = start // self.piece_size
                step = min(end, (piece + 1) * self.piece_size) - start
                pads[piece] = pads.get(piece, 0) + step
                start += step
        return pads

    def __repr__(self) -> str:
        return f"Torrent({self.name!r}, {self.infohash}, {self.n_pieces} pieces of {self.piece_size} bytes)"


def create_torrent(
    path: Path,
    *,
    piece_size: int,
    trackers: Sequence[str] = (),
    web_seeds: Sequence[str] = (),
    hybrid: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Torrent:
    """Hash a file or folder into a torrent; equal bytes and names give an equal infohash on any machine.

    piece_size: bytes, a power of two from 16 KiB to 8 MiB. hybrid: v2 hashes beside the v1 ones. They name each file by
    a hash of its own, but aria2 1.36 computes a wrong infohash for such a torrent and Transmission 3 cannot read it.
    Hidden files (names that start with a dot) are left out,
    symbolic links to files are read through. progress(hashed pieces, all pieces) is called from this thread.
    Blocks for about 1-2 s per GB, with the GIL free: call it in a thread from asyncio.
    Raises: BadArgument.
    """
    if piece_size & (piece_size - 1) or not 16_384 <= piece_size <= 8 << 20:
        # At 16 MiB a single poisoned peer can get the honest seeders banned too.
        raise BadArgument(f"piece size {piece_size} is not a power of two from 16384 (16 KiB) to 8388608 (8 MiB)")
    path = path.absolute()
    names = _list_names(path)
    entries = [lt.create_file_entry(f"{path.name}/{n}" if n else path.name, (path / n).stat().st_size) for n in names]
    if not any(entry.size for entry in entries):
        raise BadArgument(f"{path} holds no data; give a release's folder")
    # Attributes such as the executable bit differ between machines, and would change the infohash.
    flags = lt.create_torrent.no_attributes | (0 if hybrid else lt.create_torrent.v1_only)
    maker = lt.create_torrent(entries, piece_size, flags)
    maker.set_creation_date(0)
    maker.set_creator("")
    for tier, tracker in enumerate(trackers):
        maker.add_tracker(tracker, tier)
    for web_seed in web_seeds:
        maker.add_url_seed(web_seed)
    n_pieces, n_hashed = maker.num_pieces(), 0

    def hashed(_piece: int) -> None:
        nonlocal n_hashed
        n_hashed += 1
        if progress is not None:
            progress(n_hashed, n_pieces)

    try:
        # With a callback the binding releases the GIL between calls; without one it holds it throughout.
        lt.set_piece_hashes(maker, str(path.parent), hashed)
    except RuntimeError as error:
        raise BadArgument(f"{path} cannot be hashed: {error}; check that every file in it is readable") from error
    return Torrent(lt.bencode(maker.generate()))


def _list_names(path: Path) -> list[str]:
    """Paths below `path` of every file to publish, in one order on every machine; [""] when it is itself a file."""
    if path.is_file():
        return [""]
    if not path.is_dir():
        raise BadArgument(f"{path} does not exist; give a file or folder")
    names = []
    for found in sorted(
        path.rglob("*"), key=lambda p: p.relative_to(path).as_posix().encode("utf-8", "surrogateescape")
    ):
        inner = found.relative_to(path)
        if any(part.startswith(".") for part in inner.parts) or found.is_dir():
            continue
        if not found.is_file():
            raise BadArgument(f"{found} is not a regular file; remove it from the folder before publishing")
        names.append(inner.as_posix())
    return names
