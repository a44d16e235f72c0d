"""What libtorrent has told us about one torrent: alerts in, plain state out. Waits for nothing and decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libtorrent as lt

from swarm.errors import SwarmError, TransferError, VerificationError
from swarm.terms import counted
from swarm.torrent.attempts import Attempts
from swarm.torrent.metainfo import Torrent
from swarm.torrent.web_seeds import WebSeedRenewal

_PEER_BANNED = 91
"""libtorrent's own number for it; the binding exports no names."""


@dataclass(frozen=True, slots=True)
class TransferStatus:
    """A torrent at one moment.

    state: 'metadata' (asking for it), 'checking' (hashing what is on disk), 'fetching', 'idle' (all wanted pieces are
    here), 'seeding' (all pieces are), 'disk-error' or 'closed'.
    have_bytes: verified and on disk, pads not counted. fetched_bytes / uploaded_bytes: payload moved over the network
    since this download was added, wasted bytes included; what comes before a pad comes in whole torrent blocks of
    16 KiB. Rates are payload bytes per second.
    n_seeds: those of the connected peers that have everything. fetched_ever_bytes / uploaded_ever_bytes: also what
    earlier sessions moved, as the resume file tells.
    """

    state: str
    have_bytes: int
    fetched_bytes: int
    uploaded_bytes: int
    download_rate: int
    upload_rate: int
    n_peers: int
    n_seeds: int
    fetched_ever_bytes: int = 0
    uploaded_ever_bytes: int = 0

    @property
    def share_ratio(self) -> float | None:
        """Given by taken, in payload bytes and over all sessions; None before anything was taken."""
        return self.uploaded_ever_bytes / self.fetched_ever_bytes if self.fetched_ever_bytes else None


@dataclass(frozen=True, slots=True)
class DiskFault:
    """A file operation that failed. No more is requested from peers until it has been cleared."""

    path: Path
    reason: str
    code: int  # errno


class Transfer:
    """One torrent's state, kept current by on_alert(). Lives on one event loop.

    arrivals: pieces in the order in which they became verified, those found on disk first; it only grows.
    starts_blank: the torrent was added by magnet; all its priorities are unset until `prepared`.
    """

    def __init__(self, handle: Any, torrent: Torrent | None, attempts: Attempts, *, starts_blank: bool) -> None:
        self.handle = handle
        self.torrent = torrent
        self.attempts = attempts
        self.have: set[int] = set()
        self.arrivals: list[int] = []
        self.have_bytes = 0
        self.wanted: dict[int, int] = {}
        self.n_wanted_missing = 0
        self.prepared = False  # checked, and the piece priorities are ours to set
        self.fetched_bytes = 0
        self.useful_bytes = 0  # without what failed its hash, or came twice
        self._finished_bytes = 0
        self.uploaded_bytes = 0
        self.download_rate = 0
        self.upload_rate = 0
        self.fetched_ever_bytes = 0
        self.uploaded_ever_bytes = 0
        self.n_peers = 0
        self.n_seeds = 0
        self.n_status_updates = 0
        self.n_failed_pieces = 0
        self.banned: set[str] = set()
        self.disk_fault: DiskFault | None = None
        self.failure: SwarmError | None = None
        self.renewal: WebSeedRenewal | None = None  # where there are web seeds
        self._starts_blank = starts_blank
        self._wakers: set[asyncio.Future[None]] = set()
        self._reads: dict[int, list[asyncio.Future[bytes]]] = {}
        self._saves: list[asyncio.Future[bytes]] = []

    # --- what others ask

    async def changed(self, timeout_s: float | None) -> None:
        """Return after the next batch of alerts, or after timeout_s without one."""
        waker = asyncio.get_running_loop().create_future()
        self._wakers.add(waker)
        try:
            await asyncio.wait((waker,), timeout=timeout_s)
        finally:
            self._wakers.discard(waker)

    @property
    def is_lonely(self) -> bool:
        """Something is missing, and nobody is there to give it."""
        return (self.torrent is None or self.n_wanted_missing > 0) and self.n_peers == 0

    def wake(self) -> None:
        for waker in self._wakers:
            if not waker.done():
                waker.set_result(None)

    def status(self) -> TransferStatus:
        if self.failure is not None:
            state = "closed"
        elif self.disk_fault is not None:
            state = "disk-error"
        elif self.torrent is None:
            state = "metadata"
        elif not self.prepared:
            state = "checking"
        elif len(self.have) == self.torrent.n_pieces:
            state = "seeding"
        else:
            state = "fetching" if self.n_wanted_missing else "idle"
        return TransferStatus(
            state,
            self.have_bytes,
            self.fetched_bytes,
            self.uploaded_bytes,
            self.download_rate,
            self.upload_rate,
            self.n_peers,
            self.n_seeds,
            self.fetched_ever_bytes,
            self.uploaded_ever_bytes,
        )

    def note_wanted(self, priorities: dict[int, int]) -> None:
        self.n_wanted_missing += sum(1 for piece in priorities if piece not in self.wanted and piece not in self.have)
        self.wanted.update(priorities)

    def want(self, priorities: dict[int, int]) -> None:
        self.note_wanted(priorities)
        self.handle.prioritize_pieces(list(priorities.items()))

    def unwant(self, pieces: Collection[int]) -> None:
        """Request these no longer; what is here of them stays."""
        self.handle.prioritize_pieces([(piece, 0) for piece in self.forget_wanted(pieces)])

    def forget_wanted(self, pieces: Collection[int]) -> set[int]:
        """Those of the pieces that were wanted until now."""
        gone = self.wanted.keys() & pieces
        self.n_wanted_missing -= len(gone - self.have)
        for piece in gone:
            del self.wanted[piece]
        return gone

    def ask_status(self) -> None:
        """Have n_status_updates grow soon, with the state of then."""
        self.handle.post_status(0)

    def renew_web_seeds(self, now_s: float) -> bool:
        """Start over with the web seeds where nothing comes any more. False where there is no need."""
        renewal = self.renewal
        if renewal is None or not renewal.is_due(now_s, self.useful_bytes, self.n_wanted_missing > 0):
            return False
        for url in self.handle.url_seeds():
            self.handle.remove_url_seed(url)
        for url in renewal.urls:
            self.handle.add_url_seed(url)
        return True

    def start_read(self, piece: int) -> asyncio.Future[bytes]:
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        readers = self._reads.setdefault(piece, [])
        readers.append(future)
        if len(readers) == 1:
            self.handle.read_piece(piece)
        return future

    def start_save(self) -> asyncio.Future[bytes]:
        """Ask for resume data; everything verified so far is flushed to disk before it comes."""
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._saves.append(future)
        self.handle.save_resume_data(lt.torrent_handle.flush_disk_cache | lt.torrent_handle.save_info_dict)
        return future

    def close(self, failure: SwarmError) -> None:
        """Nothing more will come: every waiter gets `failure`."""
        self.failure = self.failure or failure
        for futures in (*self._reads.values(), self._saves):
            for future in futures:
                if not future.done():
                    future.set_exception(failure)
        self._reads.clear()
        self._saves.clear()
        self.wake()

    # --- what libtorrent says; an alert is dead after this call, so everything is copied out of it

    def on_alert(self, alert: Any) -> None:
        handler = _HANDLERS.get(type(alert))
        if handler is not None and self.failure is None:
            handler(self, alert)

    def on_status(self, status: Any) -> None:
        # libtorrent counts payload once a second; finished pieces are known at once.
        self.fetched_bytes = max(status.total_payload_download, self._finished_bytes)
        wasted_bytes = status.total_failed_bytes + status.total_redundant_bytes
        self.useful_bytes = status.total_payload_download - wasted_bytes
        self.uploaded_bytes = status.total_payload_upload
        self.download_rate = status.download_payload_rate
        self.upload_rate = status.upload_payload_rate
        self.fetched_ever_bytes = status.all_time_download
        self.uploaded_ever_bytes = status.all_time_upload
        self.n_peers = status.num_peers
        self.n_seeds = status.num_seeds
        pieces = status.pieces  # empty unless asked for
        for piece, has in enumerate(pieces):
            if has:
                self._arrived(piece)
        if pieces and not self.prepared and not self._starts_blank:
            self.prepared = True
        self.n_status_updates += 1

    def _metadata_received(self, _alert: Any) -> None:
        try:
            self.torrent = Torrent.from_info(self.handle.torrent_file().info_section())
        except SwarmError as error:
            self.close(error)

    def _checked(self, _alert: Any) -> None:
        self.handle.post_status(lt.torrent_handle.query_pieces)
        if self._starts_blank and self.torrent is not None:
            # File priority 0 would divert wanted pieces into a hidden parts file. This update runs on another thread
            # and overwrites piece priorities when it lands, so those are set after its alert.
            self.handle.prioritize_files([4] * len(self.torrent.files))

    def _files_prioritized(self, _alert: Any) -> None:
        if self._starts_blank and self.torrent is not None:
            self._starts_blank = False
            self.handle.prioritize_pieces([0] * self.torrent.n_pieces)
            self.handle.unset_flags(lt.torrent_flags.upload_mode)
            self.handle.post_status(lt.torrent_handle.query_pieces)

    def _piece_finished(self, alert: Any) -> None:
        before = self.have_bytes
        self._arrived(alert.piece_index)
        if self.prepared:
            self._finished_bytes += self.have_bytes - before

    def _arrived(self, piece: int) -> None:
        if piece in self.have or self.torrent is None or not 0 <= piece < self.torrent.n_pieces:
            return
        self.have.add(piece)
        self.arrivals.append(piece)
        self.have_bytes += self.torrent.piece_bytes(piece)
        if piece in self.wanted:
            self.n_wanted_missing -= 1

    def _lost(self, piece: int) -> None:
        """It is on disk no longer."""
        if piece not in self.have or self.torrent is None:
            return
        self.have.discard(piece)
        self.have_bytes -= self.torrent.piece_bytes(piece)
        if piece in self.wanted:
            self.n_wanted_missing += 1

    def _piece_read(self, alert: Any) -> None:
        error, piece = alert.error, alert.piece
        buffer = b"" if error.value() else bytes(alert.buffer)
        for future in self._reads.pop(piece, ()):
            if future.done():
                continue
            if error.value():
                future.set_exception(
                    VerificationError(f"piece {piece} cannot be read back from disk: {error.message()}; check the disk")
                )
            else:
                future.set_result(buffer)

    def _saved(self, alert: Any) -> None:
        resume_data = lt.write_resume_data_buf(alert.params)
        for future in self._pop_saves():
            future.set_result(resume_data)

    def _save_failed(self, alert: Any) -> None:
        message = alert.error.message()
        for future in self._pop_saves():
            future.set_exception(TransferError(f"libtorrent gave no resume data: {message}"))

    def _pop_saves(self) -> list[asyncio.Future[bytes]]:
        saves, self._saves = self._saves, []
        return [future for future in saves if not future.done()]

    def _file_error(self, alert: Any) -> None:
        if self.disk_fault is None:  # the first names the cause, what follows are its effects
            error = alert.error
            self.disk_fault = DiskFault(Path(alert.filename()), error.message(), error.value())

    def _hash_failed(self, _alert: Any) -> None:
        self.n_failed_pieces += 1

    def _peer_connected(self, alert: Any) -> None:
        self.attempts.peer(_endpoint(alert), "connected")

    def _peer_lost(self, alert: Any) -> None:
        self.attempts.peer(_endpoint(alert), alert.error.message())

    def _peer_banned(self, alert: Any) -> None:
        self.banned.add(_endpoint(alert))
        self.attempts.peer(_endpoint(alert), "banned: it sent data that fails its hash")

    def _tracker_asked(self, alert: Any) -> None:
        self.attempts.tracker(alert.url, "asked, no answer yet")

    def _tracker_failed(self, alert: Any) -> None:
        self.attempts.tracker(alert.url, alert.error_message() or alert.error.message())

    def _tracker_answered(self, alert: Any) -> None:
        self.attempts.tracker(alert.url, f"named {counted(alert.num_peers, 'peer')}")

    def _web_seed_failed(self, alert: Any) -> None:
        said = alert.error_message() or alert.error.message()
        self.attempts.web_seed(alert.server_url(), said)
        if self.renewal is not None and alert.error.value() == _PEER_BANNED:
            self.renewal.banned(alert.server_url())
            self.attempts.web_seed(alert.server_url(), "banned: it sent data that fails its hash")
        elif self.renewal is not None and said[:3].isdigit():
            self.renewal.failed(int(said[:3]))


def _endpoint(alert: Any) -> str:
    host, port = alert.endpoint
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


_HANDLERS = {
    lt.metadata_received_alert: Transfer._metadata_received,
    lt.torrent_checked_alert: Transfer._checked,
    lt.file_prio_alert: Transfer._files_prioritized,
    lt.piece_finished_alert: Transfer._piece_finished,
    lt.read_piece_alert: Transfer._piece_read,
    lt.save_resume_data_alert: Transfer._saved,
    lt.save_resume_data_failed_alert: Transfer._save_failed,
    lt.file_error_alert: Transfer._file_error,
    lt.torrent_error_alert: Transfer._file_error,
    lt.hash_failed_alert: Transfer._hash_failed,
    lt.peer_connect_alert: Transfer._peer_connected,
    lt.peer_error_alert: Transfer._peer_lost,
    lt.peer_disconnected_alert: Transfer._peer_lost,
    lt.peer_ban_alert: Transfer._peer_banned,
    lt.url_seed_alert: Transfer._web_seed_failed,
    lt.tracker_announce_alert: Transfer._tracker_asked,
    lt.tracker_error_alert: Transfer._tracker_failed,
    lt.tracker_reply_alert: Transfer._tracker_answered,
}
