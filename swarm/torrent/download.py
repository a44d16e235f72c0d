"""One torrent of a session, as the caller sees it: want pieces, wait for them, read them back verified."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import libtorrent as lt

from swarm.errors import (
    BadArgument,
    LocalProtocolError,
    MetadataTimeout,
    SwarmError,
    TransferStalled,
    VerificationError,
)
from swarm.terms import Address, Infohash, counted
from swarm.torrent.local import disk_error, free_bytes, make_empty_files
from swarm.torrent.magnet import Magnet
from swarm.torrent.metainfo import Torrent
from swarm.torrent.resume import stamp_files, write_resume
from swarm.torrent.transfer import Transfer, TransferStatus

_log = logging.getLogger(__name__)

_N_READS_AT_ONCE = 8
_SAVE_TIMEOUT_S = 10.0
_PEERS_TIMEOUT_S = 3.0
_FETCH_PRIORITY = 7
_TOLD_AFTER_S = 2.0
"""Metadata that takes longer is told of: a person who sees nothing for so long wonders."""


class Download:
    """A torrent being fetched or seeded. Nothing is requested until want() or fetch() asks for it.

    Data lands at its true offset in the true file below save_dir, and has() is True only after its hash was checked.
    Made by TorrentSession.add() and seed(). Every waiting method raises TransferError once the session is closed.
    """

    def __init__(
        self,
        transfer: Transfer,
        magnet: Magnet,
        save_dir: Path,
        *,
        resume_file: Path | None,
        dial: Callable[[Download, Iterable[Address]], None],
    ) -> None:
        self.infohash: Infohash = magnet.infohash
        self.magnet = magnet
        self.save_dir = save_dir
        self.transfer = transfer
        self.hosted: set[int] = set()  # what this process wants, of all that the folder's processes want
        self.disk_bytes = 0  # the most that the torrent may take on disk, 0: unbounded
        self.peers: dict[Address, None] = {}  # whom the caller named: dialled again when no peer is left
        self._resume_file = resume_file
        self._saved: tuple[int, int, int] | None = None
        self._made_empty_files = False
        self._dial = dial

    @property
    def torrent(self) -> Torrent:
        """The metadata. Raises: LocalProtocolError before metadata() has returned it."""
        if self.transfer.torrent is None:
            raise LocalProtocolError(f"torrent {self.infohash} has no metadata yet; await metadata() first")
        return self.transfer.torrent

    async def metadata(self, timeout_s: float) -> Torrent:
        """The torrent's file list and hashes, from peers when it was added by magnet.

        Raises: MetadataTimeout, saying what was tried; CorruptRelease when what came is not a torrent.
        """
        deadline, is_told = time.monotonic() + timeout_s, False
        while self.transfer.torrent is None:
            self._raise_failure()
            left_s = deadline - time.monotonic()
            if not is_told and left_s < timeout_s - _TOLD_AFTER_S:
                is_told = True
                name = self.magnet.name or self.infohash
                _log.info(
                    "asking the DHT, trackers and peers for the metadata of %s; giving up in %.0f s", name, left_s
                )
            if left_s <= 0:
                raise MetadataTimeout(
                    f"nobody gave us the metadata of torrent {self.infohash} within {timeout_s:g} s. Tried "
                    f"{self.transfer.attempts.report()}. `swarm netcheck` says whether this machine reaches "
                    "anyone; if it does, use a link that names a peer that has it (&x.pe=HOST:PORT, as `swarm release "
                    "seed` prints it) or a tracker that knows one (&tr=URL), or name a DHT node (--bootstrap HOST:PORT)"
                    f"{self.magnet.cut_hint}"
                )
            await self.transfer.changed(left_s if is_told else min(left_s, _TOLD_AFTER_S))
        return self.transfer.torrent

    async def checked(self) -> None:
        """Return when what lies on disk has been checked: from here on has() knows all of it."""
        self._raise_failure()
        if self.transfer.torrent is None:
            raise LocalProtocolError(f"torrent {self.infohash} has no metadata yet; await metadata() first")
        if not self.transfer.prepared:
            await self._recover()
        while not self.transfer.prepared:
            self._raise_failure()
            self._raise_disk_fault()
            await self.transfer.changed(None)

    async def want(self, priorities: Mapping[int, int]) -> None:
        """Request these pieces, besides those wanted before; 7 comes first, 1 last.

        A piece wanted again takes the new number. Waits until what lies on disk has been checked.
        Raises: BadArgument, LocalProtocolError before metadata().
        """
        torrent = self.torrent
        for piece, priority in priorities.items():
            if not 0 <= piece < torrent.n_pieces or not 1 <= priority <= 7:
                raise BadArgument(
                    f"piece {piece} at priority {priority}: pieces are 0..{torrent.n_pieces - 1}, priorities 1..7"
                )
        await self.checked()
        await self._recover()
        if not self._made_empty_files:
            await asyncio.to_thread(make_empty_files, torrent, self.save_dir)
            self._made_empty_files = True
        self.hosted.update(priorities)
        self.transfer.want(dict(priorities))

    async def wait_for(self, pieces: Iterable[int], *, stall_timeout_s: float = 60.0) -> None:
        """Return when all these pieces are verified and on disk. They must have been wanted.

        After a DiskFull, calling again resumes where it stopped.
        Raises: TransferStalled after stall_timeout_s in which not one useful byte came; DiskFull; TransferError.
        """
        await self.checked()
        transfer = self.transfer  # replaced when this process takes a shared folder over
        missing = set(pieces) - transfer.have
        if unwanted := missing - transfer.wanted.keys():
            raise LocalProtocolError(f"{len(unwanted)} pieces are waited for but were never wanted; call want() first")
        await self._recover()
        cursor = len(transfer.arrivals)
        progress, deadline = (cursor, transfer.useful_bytes), time.monotonic() + stall_timeout_s
        while missing:
            self._raise_failure()
            self._raise_disk_fault()
            if (cursor, transfer.useful_bytes) > progress:
                progress, deadline = (cursor, transfer.useful_bytes), time.monotonic() + stall_timeout_s
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise self._stalled(len(missing), stall_timeout_s)
            await transfer.changed(left_s)
            if transfer is not self.transfer:
                transfer, cursor, progress = self.transfer, 0, (-1, -1)
            missing.difference_update(transfer.arrivals[cursor:])
            cursor = len(transfer.arrivals)
        await self.refresh()

    async def fetch(self, file: str, offset: int, size_bytes: int, *, stall_timeout_s: float = 60.0) -> bytes:
        """These bytes of a file, fetched first if they are not here, and hashed again after reading them from disk.

        Raises: BadArgument outside of the file; VerificationError when the disk gives other bytes than were written;
        and what wait_for() raises.
        """
        torrent = self.torrent
        pieces = torrent.pieces_of(file, offset, size_bytes)
        await self.checked()
        if missing := [piece for piece in pieces if piece not in self.transfer.have]:
            await self.want(dict.fromkeys(missing, _FETCH_PRIORITY))
            await self.wait_for(missing, stall_timeout_s=stall_timeout_s)
        chunks = []
        for first in range(0, len(pieces), _N_READS_AT_ONCE):
            batch = pieces[first : first + _N_READS_AT_ONCE]
            chunks += await asyncio.gather(*(self._read_verified(torrent, piece, file) for piece in batch))
        start = torrent.entry(file).offset + offset - (pieces.start * torrent.piece_size)
        return b"".join(chunks)[start : start + size_bytes]

    def has(self, piece: int) -> bool:
        return piece in self.transfer.have

    def file_path(self, file: str) -> Path:
        """Where this file lies, or will lie. Raises: BadArgument when the torrent has no such file."""
        return self.torrent.path_in(self.save_dir, file)

    def status(self) -> TransferStatus:
        """The state of at most a quarter of a second ago."""
        return self.transfer.status()

    async def refresh(self) -> TransferStatus:
        """The state of now."""
        n_updates = self.transfer.n_status_updates
        self._raise_failure()
        self.transfer.ask_status()
        while self.transfer.n_status_updates == n_updates:
            self._raise_failure()
            await self.transfer.changed(None)
        return self.transfer.status()

    def describe_attempts(self) -> str:
        """One line for error messages: trackers, peers and the DHT, each with what came of it."""
        return self.transfer.attempts.report()

    def add_peers(self, addresses: Iterable[Address]) -> None:
        """Dial these BitTorrent peers, and ask them for others through the DHT too. Returns at once."""
        self._dial(self, addresses)

    async def save_resume(self) -> None:
        """Record what is on disk, so that the next add() to the same save_dir hashes nothing. No-op for seed().

        Raises: DiskFull when the record itself finds no room.
        """
        torrent, transfer = self.transfer.torrent, self.transfer
        if self._resume_file is None or torrent is None or not transfer.prepared or transfer.failure is not None:
            return
        progress = (len(transfer.arrivals), transfer.fetched_bytes, transfer.uploaded_bytes)
        if progress == self._saved:
            return
        data = await transfer.start_save()
        stamps = await asyncio.to_thread(stamp_files, torrent, self.save_dir)
        try:
            await asyncio.to_thread(write_resume, self._resume_file, data, stamps)
        except OSError as error:
            raise disk_error(self._resume_file, error.strerror, error.errno) from error
        self._saved = progress

    def availability(self) -> list[int]:
        """By piece, how many connected peers have it; empty where this process fetches nothing itself."""
        return list(self.transfer.handle.piece_availability()) if self.transfer.handle is not None else []

    async def known_availability(self) -> list[int]:
        """availability(), once a connected peer has told what it has; all zeros where none does for a while."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PEERS_TIMEOUT_S):
                while not any(self.availability()):
                    await self.transfer.changed(1.0)
        return self.availability() or [0] * self.torrent.n_pieces

    def take_over(self, transfer: Transfer, resume_file: Path) -> None:
        """Go on with another transfer of the same torrent in the same folder. Does not want anything of it."""
        before, self.transfer, self._resume_file, self._saved = self.transfer, transfer, resume_file, None
        before.wake()

    async def try_save_resume(self) -> None:
        """save_resume(), with trouble told to the log alone: at worst the next start hashes what is there."""
        try:
            async with asyncio.timeout(_SAVE_TIMEOUT_S):
                await self.save_resume()
        except (SwarmError, TimeoutError) as error:
            _log.warning("the progress of torrent %s was not recorded: %s", self.infohash, error or "timed out")

    # --- inside

    async def _read_verified(self, torrent: Torrent, piece: int, file: str) -> bytes:
        self._raise_failure()
        data = await self.transfer.start_read(piece)
        expected = torrent.piece_hash(piece)
        if expected is not None and hashlib.sha1(data, usedforsecurity=False).digest() != expected:
            raise VerificationError(
                f"{self.file_path(file)} has changed on disk: piece {piece} no longer matches its hash. Delete "
                "the file and run again: its pieces are fetched anew"
            )
        return data

    async def _recover(self) -> None:
        """Undo what libtorrent does on a disk error; it fails again at once when the cause remains."""
        if self.transfer.disk_fault is None:
            return
        await self.refresh()  # whatever else failed before this moment has been reported by then
        self.transfer.disk_fault = None
        handle = self.transfer.handle
        handle.clear_error()
        if self._resume_file is not None:  # else it seeds somebody's folder, and stays in upload mode
            handle.unset_flags(lt.torrent_flags.upload_mode)
        handle.resume()
        self._dial(self, tuple(self.peers))

    def _raise_failure(self) -> None:
        if self.transfer.failure is not None:
            raise self.transfer.failure

    def _raise_disk_fault(self) -> None:
        fault = self.transfer.disk_fault
        if fault is not None:
            # libtorrent may name an effect first, such as a file too short to be hashed.
            if free_bytes(self.save_dir) < self.torrent.piece_size:
                raise disk_error(fault.path, os.strerror(errno.ENOSPC), errno.ENOSPC)
            raise disk_error(fault.path, fault.reason, fault.code)

    def _stalled(self, n_missing: int, stall_timeout_s: float) -> SwarmError:
        transfer = self.transfer
        n_bad = transfer.n_failed_pieces
        bad = f"; {counted(n_bad, 'piece')} came with wrong bytes" if n_bad else ""
        bad += f"; banned for that: {', '.join(sorted(transfer.banned)[:8])}" if transfer.banned else ""
        return TransferStalled(
            f"no data of torrent {self.infohash} came for {stall_timeout_s:g} s, and {n_missing} wanted pieces are "
            f"missing. Connected: {counted(transfer.n_peers, 'peer')}, {transfer.n_seeds} of them complete{bad}. Tried "
            f"{transfer.attempts.report()}. What has come is kept: run it again when a peer is back, or add "
            "another to the magnet link (&x.pe=HOST:PORT) or a tracker that knows one (&tr=URL)"
        )
