"""Keeps the note of this node: what its owner may want to know, renewed while it lives and gone when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import psutil

from node.notes import Note, write_note
from node.server.statement import Statement
from swarm.facts import NodeState
from swarm.terms import merge_experts
from swarm.torrent import Download

NOTE_INTERVAL_S = 0.5


class NoteKeeper:
    """name: of the release, once it is known. drain_ends_s: set when the node leaves (seconds since the epoch)."""

    def __init__(self, path: Path, said: Statement, download: Download) -> None:
        self.name = ""
        self.drain_ends_s: float | None = None
        self._path = path
        self._said = said
        self._download = download
        self._pid = os.getpid()
        self._started_s = psutil.Process().create_time()
        self._written: Note | None = None

    async def run(self) -> None:
        """Until it is cancelled; the note is taken away then."""
        try:
            while True:
                self.write()
                await asyncio.sleep(NOTE_INTERVAL_S)
        finally:
            self._path.unlink(missing_ok=True)

    def write(self) -> None:
        """Where something changed. A full disk ends downloads, and not this."""
        note = self._note()
        if note != self._written:
            with contextlib.suppress(OSError):
                write_note(self._path, note)
                self._written = note

    def _note(self) -> Note:
        said, moved = self._said, self._download.status()
        stage, progress = said.stage, said.progress
        spans = tuple(map(str, said.spans))
        return Note(
            pid=self._pid,
            started_s=self._started_s,
            node_id=said.node_id,
            name=self.name,
            infohash=said.release,
            state=said.state.value,
            address=str(said.reach.address),
            profile=str(said.profile),
            spans=spans,
            trunks=tuple(map(str, said.trunks)),
            experts=tuple(map(str, merge_experts(said.experts))),
            loaded_spans=spans if said.state is NodeState.SERVING else tuple(map(str, said.loaded)),
            n_sessions=0 if stage is None else stage.n_sessions,
            free_sessions=0 if stage is None else stage.free_sessions,
            cache_bytes=0 if stage is None else stage.cache_bytes,
            needed_bytes=0 if progress is None else progress.needed_bytes,
            have_bytes=0 if progress is None else progress.have_bytes,
            fetched_bytes=moved.fetched_ever_bytes,
            uploaded_bytes=moved.uploaded_ever_bytes,
            share_ratio=moved.share_ratio,
            drain_ends_s=self.drain_ends_s,
            version=said.version,
        )
