"""One node's note, as JSON in a file."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class Note:
    """pid, started_s: which process (seconds since the epoch, as the system tells it). state: as in NodeState.

    loaded_spans: what takes sessions. drain_ends_s: when sessions are told to go elsewhere (seconds since the epoch),
    of a draining node. share_ratio: uploaded to fetched bytes, over all runs; None while nothing was fetched.
    """

    pid: int
    started_s: float
    node_id: str
    name: str
    infohash: str
    state: str
    address: str
    profile: str
    spans: tuple[str, ...]
    loaded_spans: tuple[str, ...]
    trunks: tuple[str, ...]
    experts: tuple[str, ...]
    n_sessions: int
    free_sessions: int
    cache_bytes: int
    needed_bytes: int
    have_bytes: int
    fetched_bytes: int
    uploaded_bytes: int
    share_ratio: float | None
    drain_ends_s: float | None
    version: str

    @property
    def is_running(self) -> bool:
        """Whether that very process, and no later one of the same number, lives."""
        with contextlib.suppress(psutil.Error):
            return bool(psutil.Process(self.pid).create_time() == self.started_s)
        return False


def note_path(key_path: Path) -> Path:
    """Where the node with this key notes: nodes of one release and data folder have a key each."""
    return key_path.with_suffix(".json")


def write_note(path: Path, note: Note) -> None:
    """In one go: whoever reads meanwhile reads the one before."""
    whole = path.with_suffix(".json.new")
    whole.write_text(json.dumps(dataclasses.asdict(note)), encoding="utf-8")
    os.replace(whole, path)


def read_notes(data_dir: Path) -> list[Note]:
    """Of the nodes that run on this data folder, by release and then by node id."""
    found = [note for path in sorted((data_dir / "node").glob("*/node*.json")) if (note := _read(path)) is not None]
    return sorted((note for note in found if note.is_running), key=lambda note: (note.name, note.node_id))


def _read(path: Path) -> Note | None:
    """None for what is no note of this version."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        note = Note(**fields)
        return dataclasses.replace(
            note,
            spans=tuple(note.spans),
            loaded_spans=tuple(note.loaded_spans),
            trunks=tuple(note.trunks),
            experts=tuple(note.experts),
        )
    except (OSError, ValueError, TypeError):
        return None
