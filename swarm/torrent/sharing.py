"""One download for all processes of this machine that want a torrent in the same folder.

Who holds the folder's lock is its keeper: it fetches, and writes down which pieces are verified. Every other process
follows: it asks the keeper for pieces through a file, reads the keeper's files, and fetches nothing. When the keeper
ends or is killed, the system frees the lock and a follower becomes the keeper. Knows no libtorrent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from swarm.errors import CorruptRelease, TransferError
from swarm.terms import Infohash
from swarm.torrent.attempts import Attempts
from swarm.torrent.local import disk_error
from swarm.torrent.metainfo import Torrent
from swarm.torrent.recheck import read_piece
from swarm.torrent.room import check_room, tightest
from swarm.torrent.transfer import Transfer

try:
    import fcntl
except ImportError:  # a system without flock: every process is its own keeper, as if it were alone
    fcntl = None  # type: ignore[assignment]

_MAX_BYTES = 256 << 20


class FolderLock:
    """This process fetches the torrent into this folder, and no other one. Freed by release() or the process' end."""

    def __init__(self, file: IO[bytes] | None) -> None:
        self._file = file

    @classmethod
    def take(cls, save_dir: Path, infohash: Infohash) -> FolderLock | None:
        """The lock, or None while another process holds it. Where files cannot be locked it is always free."""
        try:
            file = _note(save_dir, infohash, "lock").open("ab")
        except OSError:
            return cls(None)
        if _lock(file):
            return cls(file)
        file.close()
        return None

    def release(self) -> None:
        if self._file is not None:
            self._file.close()


@dataclass(frozen=True, slots=True)
class Wants:
    """What a follower wants: piece -> priority. disk_bytes: the most that the folder may take for it, 0: unbounded."""

    pieces: dict[int, int]
    disk_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Demand:
    """wanted: what followers want more than before. released: what none of them wants any longer."""

    wanted: dict[int, int]
    released: frozenset[int] = frozenset()


class Keeper:
    """The side that fetches. sync() from time to time tells followers what is there and gathers what they want."""

    def __init__(self, lock: FolderLock, save_dir: Path, infohash: Infohash) -> None:
        self._lock = lock
        self._save_dir = save_dir
        self._infohash = infohash
        self._n_told = -1
        self._told_hosted: tuple[int, ...] = ()
        self._n_changes = 0  # of what followers want
        self._stamps: dict[Path, tuple[int, int]] = {}  # of wants that were taken: modification time and size
        self._followers: dict[Path, Wants] = {}
        for what in ("have", "hosted"):
            _note(save_dir, infohash, what).unlink(missing_ok=True)  # of a keeper before this one

    @property
    def hosted(self) -> set[int]:
        """What followers want."""
        return set().union(*(wants.pieces for wants in self._followers.values()))

    def limit(self, disk_bytes: int) -> int:
        """The tightest bound on the folder: the keeper's own, or a follower's; 0 where nobody has one."""
        return tightest((disk_bytes, *(wants.disk_bytes for wants in self._followers.values())))

    def sync(self, transfer: Transfer, disk_bytes: int = 0) -> Demand:
        """Write what has been verified since the last call, and return what followers newly want, or want no longer.

        disk_bytes: the keeper's own bound. Small files only.
        """
        torrent = transfer.torrent
        if torrent is None or not transfer.prepared:
            return Demand({})
        demand = self.sync_wants(transfer, torrent.n_pieces)
        with contextlib.suppress(OSError):  # a full disk: told by the download itself
            if self._n_told < 0:
                _replace(_note(self._save_dir, self._infohash, "torrent"), torrent.data)
            if len(transfer.arrivals) != self._n_told:
                _replace(_note(self._save_dir, self._infohash, "have"), _bitmap(transfer.have, torrent.n_pieces))
                self._n_told = len(transfer.arrivals)
            self._tell_hosted(set(transfer.wanted), self.limit(disk_bytes), torrent.n_pieces)
        return demand

    def sync_wants(self, transfer: Transfer, n_pieces: int) -> Demand:
        """How followers' wants have changed."""
        before, paths = dict(self._followers), set(self._save_dir.glob(f".{self._infohash}.want-*"))
        for path in paths | before.keys():
            self._take_wants(path, n_pieces)
        if self._followers == before:
            return Demand({})
        self._n_changes += 1
        wanted: dict[int, int] = {}
        for wants in self._followers.values():
            wanted |= {p: n for p, n in wants.pieces.items() if n > max(wanted.get(p, 0), transfer.wanted.get(p, 0))}
        released = set().union(*(wants.pieces for wants in before.values())) - self.hosted
        return Demand(wanted, frozenset(released))

    def withdraw(self, transfer: Transfer, pieces: set[int]) -> dict[int, int]:
        """Tell followers that these pieces are going, and return what they want by now: none of that may go.

        A follower says what it wants before it looks whether that is here: one of the two sees the other.
        Raises: TransferError, and nothing may go then.
        """
        assert transfer.torrent is not None
        path = _note(self._save_dir, self._infohash, "have")
        try:
            _replace(path, _bitmap(transfer.have - pieces, transfer.torrent.n_pieces))
        except OSError as error:
            raise disk_error(self._save_dir, error.strerror, error.errno) from error
        self._n_told = -1
        wanted = self.sync_wants(transfer, transfer.torrent.n_pieces).wanted
        transfer.note_wanted(wanted)
        return wanted

    def release(self) -> None:
        self._lock.release()

    def _take_wants(self, path: Path, n_pieces: int) -> None:
        try:
            with path.open("r+b") as file:
                if _lock(file):  # nobody holds it: its process has gone
                    path.unlink()
                    raise FileNotFoundError
                stat = os.fstat(file.fileno())
                stamp = (stat.st_mtime_ns, stat.st_size)
                if self._stamps.get(path) != stamp:
                    self._followers[path] = _parse_wants(file.read(_MAX_BYTES), n_pieces)
                    self._stamps[path] = stamp
        except FileNotFoundError:
            self._followers.pop(path, None)
            self._stamps.pop(path, None)
        except (OSError, ValueError, TypeError, LookupError, ArithmeticError, RecursionError):
            pass  # being written now, or no list of ours

    def _tell_hosted(self, wanted: set[int], limit: int, n_pieces: int) -> None:
        """What all of this folder's processes host, for those to come: they must find room beside it."""
        told = (len(wanted), limit, self._n_changes)
        if told != self._told_hosted:
            value = {"disk_bytes": limit, "wanted": _bitmap(wanted, n_pieces).hex()}
            _replace(_note(self._save_dir, self._infohash, "hosted"), json.dumps(value).encode())
            self._told_hosted = told


def _parse_wants(data: bytes, n_pieces: int) -> Wants:
    """Raises: ValueError, TypeError, LookupError and their like for what no follower writes."""
    value = json.loads(data or b'{"wanted": [], "disk_bytes": 0}')
    pairs = {int(piece): int(priority) for piece, priority in value["wanted"]}
    pieces = {piece: n for piece, n in pairs.items() if 0 <= piece < n_pieces and 1 <= n <= 7}
    return Wants(pieces, max(0, int(value["disk_bytes"])))


class FollowedTransfer(Transfer):
    """A torrent that another process of this machine fetches into save_dir: the same state, read from its notes.

    What was fetched counts for the keeper alone: fetched_bytes stays 0.
    """

    def __init__(self, save_dir: Path, infohash: Infohash, torrent: Torrent | None, attempts: Attempts) -> None:
        super().__init__(None, torrent, attempts, starts_blank=False)
        self._save_dir = save_dir
        self._infohash = infohash
        self._stamp = (0, 0)
        self._disk_bytes = 0
        self._wants = _note(save_dir, infohash, f"want-{os.getpid()}-{os.urandom(4).hex()}")
        scratch = self._wants.with_name(f"{self._wants.name}.new".replace(".want-", ".new-"))
        self._wants_file = scratch.open("x+b", buffering=0)
        _lock(self._wants_file)  # before the keeper sees it: an unlocked one is of a process that has gone
        os.replace(scratch, self._wants)

    def poll(self) -> None:
        """Take what the keeper has written since the last call."""
        try:
            if self.torrent is None:
                torrent = Torrent(_note(self._save_dir, self._infohash, "torrent").read_bytes())
                self.torrent = torrent if torrent.infohash == self._infohash else None
            path = _note(self._save_dir, self._infohash, "have")
            stat = path.stat()
            stamp = (stat.st_mtime_ns, stat.st_ino)
            if self.torrent is None or stamp == self._stamp:
                return
            bitmap = path.read_bytes()
        except (OSError, CorruptRelease):
            return  # the keeper has not come so far
        if len(bitmap) != (self.torrent.n_pieces + 7) // 8:
            return
        self._stamp = stamp
        before = len(self.have)
        here = set(_pieces_of(bitmap, self.torrent.n_pieces))
        for piece in sorted(here):
            self._arrived(piece)
        for piece in self.have - here:
            self._lost(piece)
        self.prepared = True
        self.useful_bytes += max(0, len(self.have) - before)  # that somebody makes progress
        self.wake()

    def want(self, priorities: dict[int, int]) -> None:
        self.note_wanted(priorities)
        self._say()
        self.poll()  # what the keeper gave up before it could read this is no longer here

    def host(self, pieces: set[int], disk_bytes: int) -> None:
        """These are hosted here from now on, and the folder takes disk_bytes at most (0: unbounded).

        The keeper sees to it. Raises: BadArgument where they do not fit beside what the folder's other processes host.
        """
        assert self.torrent is not None
        limit, others = self._hosted_by_all(self.torrent.n_pieces)
        own = set(self.wanted)  # among what all want, where nobody else wants it too
        check_room(pieces | (others - own), self.torrent.bytes_in, tightest((disk_bytes, limit)))
        self.unwant(own - pieces)
        self._disk_bytes = disk_bytes
        self._say()

    def unwant(self, pieces: Collection[int]) -> None:
        self.forget_wanted(pieces)

    def _hosted_by_all(self, n_pieces: int) -> tuple[int, set[int]]:
        """(the folder's bound, what its processes host), as the keeper last wrote it."""
        try:
            value = json.loads(_note(self._save_dir, self._infohash, "hosted").read_bytes())
            bitmap, limit = bytes.fromhex(value["wanted"]), int(value["disk_bytes"])
        except (OSError, ValueError, TypeError, LookupError, ArithmeticError, RecursionError):
            return 0, set()
        return max(0, limit), set(_pieces_of(bitmap, n_pieces)) if len(bitmap) == (n_pieces + 7) // 8 else set()

    def _say(self) -> None:
        text = json.dumps({"disk_bytes": self._disk_bytes, "wanted": list(self.wanted.items())}).encode()
        os.pwrite(self._wants_file.fileno(), text, 0)
        os.ftruncate(self._wants_file.fileno(), len(text))  # read in between, it is no list, and is read again

    def ask_status(self) -> None:
        self.n_status_updates += 1
        self.wake()

    def start_read(self, piece: int) -> asyncio.Future[bytes]:
        assert self.torrent is not None
        return asyncio.get_running_loop().run_in_executor(None, read_piece, self.torrent, self._save_dir, piece)

    def give_up(self, error: Exception) -> None:
        """Nobody fetches it any more, and this process cannot either."""
        reason = getattr(error, "message", str(error))
        self.close(TransferError(f"torrent {self._infohash} cannot be taken over: {reason}"))
        self.end()

    def end(self) -> None:
        """Follow no longer."""
        self._wants.unlink(missing_ok=True)
        self._wants_file.close()


def _note(save_dir: Path, infohash: Infohash, what: str) -> Path:
    return save_dir / f".{infohash}.{what}"


def _lock(file: IO[bytes]) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks
    return True


def _replace(path: Path, data: bytes) -> None:
    scratch = path.with_name(f"{path.name}.{os.urandom(4).hex()}")
    try:
        scratch.write_bytes(data)
        os.replace(scratch, path)
    except OSError:
        scratch.unlink(missing_ok=True)
        raise


def _bitmap(pieces: set[int], n_pieces: int) -> bytes:
    bits = bytearray((n_pieces + 7) // 8)
    for piece in pieces:
        bits[piece >> 3] |= 1 << (piece & 7)
    return bytes(bits)


def _pieces_of(bitmap: bytes, n_pieces: int) -> Iterator[int]:
    return (piece for piece in range(n_pieces) if bitmap[piece >> 3] >> (piece & 7) & 1)
