"""`swarm node status` and `swarm node stop`: the nodes that run on this machine, by the notes that they keep."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from swarm.cli.console import (
    format_duration,
    format_percent,
    format_size,
    note,
    out_console,
    print_json,
    status_line,
)
from swarm.cli.options import data_dir_option, json_option
from swarm.cli.status import hosting_words
from swarm.errors import BadArgument, DeadlineExceeded
from swarm.terms import counted, short_id

if TYPE_CHECKING:
    from node.notes import Note

SCHEMA = "swarm.node-status/1"
LOOK_S = 0.1
PATIENCE_S = 15.0
"""How long a node may take over its farewell beyond the time that it gives its sessions."""


@click.command()
@data_dir_option("Where the nodes keep their keys (default: the user's data folder).")
@json_option
def status(data_dir: Path | None, as_json: bool) -> None:
    """Show the nodes that run on this machine: state, layers, sessions, what each fetched and gave.

    \b
    Example:
      swarm node status --json
    """
    notes = notes_in(data_dir)
    if as_json:
        print_json(SCHEMA, {"nodes": [fields_of(one) for one in notes]})
    elif notes:
        show(notes)
    else:
        note("no node runs here; start one with `swarm node start MAGNET`, or name its --data-dir")


@click.command()
@click.argument("which", metavar="[NODE]", default="")
@data_dir_option("Where the nodes keep their keys (default: the user's data folder).")
@click.option("--now", is_flag=True, help="Hand the running sessions over at once, to nodes that can go on with them.")
@click.option("--no-wait", is_flag=True, help="Return once it was told, not once it has stopped.")
def stop(which: str, data_dir: Path | None, now: bool, no_wait: bool) -> None:
    """Drain and stop the nodes that run on this machine, or the one whose id begins with NODE.

    A node takes no new sessions and lets those that run come to their end for as long as its --drain-timeout; those
    that are left are told to go on elsewhere. No generation loses a token by it.

    \b
    Example:
      swarm node stop
    """
    notes = [one for one in notes_in(data_dir) if one.node_id.startswith(which)]
    if not notes:
        raise BadArgument(
            f"no node{' ' + repr(which) if which else ''} runs here; `swarm node status` shows those that do, "
            "with --data-dir where they were started with it"
        )
    if which and len(notes) > 1:
        raise BadArgument(f"{which!r} is the beginning of {len(notes)} nodes' ids; write more of it")
    for one in notes:
        with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
            os.kill(one.pid, signal.SIGUSR1 if now else signal.SIGTERM)
    if not no_wait:
        _wait_for_end(notes, data_dir)


def notes_in(data_dir: Path | None) -> list[Note]:
    import platformdirs

    from node.notes import read_notes

    return read_notes(data_dir or Path(platformdirs.user_data_dir("mistral-swarm")))


def fields_of(one: Note) -> dict[str, Any]:
    fields = dataclasses.asdict(one)
    fields["drain_left_s"] = drain_left_s(one)
    del fields["drain_ends_s"], fields["started_s"]
    return fields


def drain_left_s(one: Note) -> float | None:
    return None if one.drain_ends_s is None else round(max(0.0, one.drain_ends_s - time.time()), 1)


def show(notes: Sequence[Note]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("NODE", "PID", "RELEASE", "STATE", "HOSTS", "SESSIONS", "KV CACHE", "FETCHED", "GAVE", "ADDRESS"):
        table.add_column(heading, no_wrap=True)
    for one in notes:
        ratio = "" if one.share_ratio is None else f" ({one.share_ratio:.2f})"
        table.add_row(
            short_id(one.node_id), str(one.pid), one.name or one.infohash[:8], _state(one), _layers(one),
            f"{one.n_sessions} ({one.free_sessions} more)" if one.spans or one.trunks else "-",
            format_size(one.cache_bytes), _fetched(one),
            format_size(one.uploaded_bytes) + ratio, one.address,
        )  # fmt: skip
    out_console().print(table)


def _state(one: Note) -> str:
    left_s = drain_left_s(one)
    return one.state if left_s is None else f"{one.state}, {format_duration(left_s)} left"


def _layers(one: Note) -> str:
    """As in `swarm status`; of a node that is not ready also which layers take sessions."""
    words, loaded = hosting_words(one.spans, one.trunks, one.experts) or "-", ", ".join(one.loaded_spans)
    return words if one.loaded_spans == one.spans else f"{words} (loaded: {loaded or 'none'})"


def _fetched(one: Note) -> str:
    has = f", has {format_percent(one.have_bytes, one.needed_bytes)} of what it needs" if one.needed_bytes else ""
    return format_size(one.fetched_bytes) + has


def _wait_for_end(notes: Sequence[Note], data_dir: Path | None) -> None:
    """Say what is left until all have ended. Raises: DeadlineExceeded."""
    ids = {one.node_id for one in notes}
    deadline_s = time.monotonic() + PATIENCE_S
    with status_line() as say:
        while left := [one for one in notes_in(data_dir) if one.node_id in ids]:
            if ending := max((one.drain_ends_s or 0.0 for one in left), default=0.0):
                deadline_s = max(deadline_s, time.monotonic() + ending - time.time() + PATIENCE_S)
            if time.monotonic() > deadline_s:
                names = ", ".join(f"{short_id(one.node_id)} (pid {one.pid})" for one in left)
                raise DeadlineExceeded(f"{names} did not stop; `kill -9` ends it without a farewell")
            running = ((short_id(one.node_id), _state(one), counted(one.n_sessions, "session")) for one in left)
            say("; ".join(f"node {node_id} is {state}: {sessions}" for node_id, state, sessions in running))
            time.sleep(LOOK_S)
    note(f"stopped {counted(len(ids), 'node')}")
