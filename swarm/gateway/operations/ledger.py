"""What was served, to whom and by which nodes: one row a request in SQLite, written by a thread of its own.

Keeps counts, names and times; never a prompt or an answer. Does NOT know prices, and does not read itself back: that is
`usage.py`, which may do so while a gateway writes.
"""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from swarm.errors import BadArgument
from swarm.facts import Route
from swarm.messages import HopTime
from swarm.terms import NodeId

logger = logging.getLogger(__name__)

APPLICATION_ID = 0x53574C47  # "SWLG": `file` and we know a ledger by it
SCHEMA_VERSION = 1
SCHEMA = """
create table requests (
    id integer primary key,
    request_id text not null,
    key text not null,
    model text not null,
    endpoint text not null,
    tokens_in integer not null,
    tokens_out integer not null,
    started_s real not null,
    finished_s real not null,
    finish_reason text not null
);
create index requests_by_time on requests (finished_s);
create table shares (
    request integer not null references requests (id),
    node_id text not null,
    n_steps integer not null,
    layer_steps integer not null,
    compute_s real not null,
    primary key (request, node_id)
) without rowid;
"""
MAX_PENDING = 100_000
"""Entries kept in memory while the disk refuses them (full, slow): some 100 MB at most."""
MAX_BATCH = 500
RETRY_S = 1.0
CLOSE_WITHIN_S = 10.0


@dataclass(frozen=True, slots=True)
class NodeShare:
    """What one node did for a request: the steps it took part in, those times its layers, and its seconds of compute.

    layer_steps is what to credit nodes by: it weighs a node with 28 of 32 layers seven times one with 4.
    """

    node_id: NodeId
    n_steps: int
    layer_steps: int
    compute_s: float


@dataclass(frozen=True, slots=True)
class UsageEntry:
    """One request that was served. started_s, finished_s: Unix time.

    endpoint: the path. finish_reason: as it was told to the caller, or "cancelled", or "error".
    nodes: every node that served it, those that were lost on the way as well.
    """

    request_id: str
    key_name: str
    model: str
    endpoint: str
    tokens_in: int
    tokens_out: int
    started_s: float
    finished_s: float
    finish_reason: str
    nodes: tuple[NodeShare, ...] = ()


class NodeTally:
    """Counts, token by token, what each node does for a request: take() each TokenEvent's hop_times.

    Who took part, and with which layers, is what the route in force says: the times come from the stages themselves,
    which may leave others out, or name themselves twice.
    """

    def __init__(self) -> None:
        self._shares: dict[NodeId, tuple[int, int, float]] = {}

    def take(self, hop_times: Iterable[HopTime], route: Route | None) -> None:
        compute_s = {hop.node_id: hop.compute_s for hop in hop_times}
        for hop in route.hops if route is not None else ():
            n_steps, layer_steps, spent_s = self._shares.get(hop.node_id, (0, 0, 0.0))
            told_s = compute_s.get(hop.node_id, 0.0)
            self._shares[hop.node_id] = (n_steps + 1, layer_steps + len(hop.span), spent_s + told_s)

    @property
    def shares(self) -> tuple[NodeShare, ...]:
        return tuple(NodeShare(node_id, *share) for node_id, share in self._shares.items())


def default_ledger_path() -> Path:
    """Where the gateway writes and `swarm usage` reads unless told otherwise."""
    from platformdirs import user_data_path

    return user_data_path("mistral-swarm") / "gateway-usage.sqlite"


class Ledger:
    """Takes entries without waiting, and has them on disk within a moment of the disk being able to.

    A disk that refuses is tried again every second; meanwhile entries wait in memory, and what does not fit there or is
    not written when close() gives up is counted in n_lost and told in the log.
    Raises: BadArgument when the file is no ledger or cannot be opened.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.n_lost = 0
        self._pending: queue.Queue[UsageEntry | None] = queue.Queue(MAX_PENDING)
        self._is_closing = threading.Event()
        file.parent.mkdir(parents=True, exist_ok=True)
        self._connection = open_for_writing(file)  # here, so that a failure is told; from here on the thread's alone
        self._writer = threading.Thread(target=self._write, name="gateway-ledger", daemon=True)
        self._writer.start()

    def record(self, entry: UsageEntry) -> None:
        """Take an entry; from any thread, never waiting."""
        try:
            self._pending.put_nowait(entry)
        except queue.Full:
            self.n_lost += 1
            logger.error("the ledger %s cannot keep up; request %s is not in it", self.file, entry.request_id)

    @property
    def n_pending(self) -> int:
        """Entries taken and not yet handed to the disk."""
        return self._pending.qsize()

    def close(self) -> None:
        """Write what is left and end. Takes some milliseconds, or ten seconds when the disk refuses."""
        if not self._is_closing.is_set():
            self._is_closing.set()
            self._pending.put(None)
        self._writer.join()

    def _write(self) -> None:
        give_up_s: float | None = None
        batch: list[UsageEntry] = []
        is_ending = False
        try:
            while not is_ending or batch:
                if not batch:
                    batch, is_ending = self._take_batch()
                try:
                    write_batch(self._connection, batch)
                    batch = []
                except sqlite3.Error as error:
                    logger.error("the ledger %s cannot be written (%s); trying again", self.file, error)
                    if self._is_closing.wait(RETRY_S):
                        give_up_s = give_up_s or time.monotonic() + CLOSE_WITHIN_S
                        if time.monotonic() > give_up_s:
                            break
                        time.sleep(RETRY_S / 10)
        finally:
            self._count_lost(batch)
            self._connection.close()

    def _take_batch(self) -> tuple[list[UsageEntry], bool]:
        """What is pending, after waiting for at least one entry; and whether that was all there will ever be."""
        batch: list[UsageEntry] = []
        taken = self._pending.get()
        while taken is not None:
            batch.append(taken)
            if len(batch) == MAX_BATCH or self._pending.empty():
                return batch, False
            taken = self._pending.get()
        return batch, True

    def _count_lost(self, batch: Sequence[UsageEntry]) -> None:
        n_lost = len(batch)
        while not self._pending.empty():
            n_lost += self._pending.get() is not None
        if n_lost:
            self.n_lost += n_lost
            logger.error("the ledger %s was closed with %d requests unwritten", self.file, n_lost)


def open_for_writing(file: Path) -> sqlite3.Connection:
    """A connection to the ledger at `file`, made if there is none. Raises: BadArgument."""
    try:
        connection = sqlite3.connect(file, timeout=5.0, isolation_level=None, check_same_thread=False)
        try:
            check_is_ledger(connection, file, may_be_new=True)
            connection.execute("pragma journal_mode = wal")
            # With WAL, a power cut may lose the last moment's rows and never damages the file.
            connection.execute("pragma synchronous = normal")
            connection.execute("begin immediate")
            if not connection.execute("pragma user_version").fetchone()[0]:
                for statement in filter(str.strip, SCHEMA.split(";")):
                    connection.execute(statement)
                connection.execute(f"pragma application_id = {APPLICATION_ID}")
                connection.execute(f"pragma user_version = {SCHEMA_VERSION}")
            connection.execute("commit")
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise BadArgument(f"the ledger {file} cannot be opened: {error}; name another file with --ledger") from error
    return connection


def check_is_ledger(connection: sqlite3.Connection, file: Path, *, may_be_new: bool = False) -> None:
    """Return only if the file is a ledger of this version. Raises: BadArgument, sqlite3.Error."""
    application_id, version = (
        connection.execute(f"pragma {name}").fetchone()[0] for name in ("application_id", "user_version")
    )
    n_tables = connection.execute("select count(*) from sqlite_master").fetchone()[0]
    if may_be_new and (application_id, version, n_tables) == (0, 0, 0):
        return
    if application_id != APPLICATION_ID:
        raise BadArgument(f"{file} is a database, and not a gateway's ledger; name another file with --ledger")
    if version != SCHEMA_VERSION:
        raise BadArgument(
            f"the ledger {file} is of version {version}, and this program knows {SCHEMA_VERSION}; use the program that "
            "wrote it, or name another file with --ledger"
        )


def write_batch(connection: sqlite3.Connection, batch: Iterable[UsageEntry]) -> None:
    """All of the batch, or none of it. Raises: sqlite3.Error."""
    connection.execute("begin immediate")
    try:
        for entry in batch:
            cursor = connection.execute(
                "insert into requests (request_id, key, model, endpoint, tokens_in, tokens_out, started_s, finished_s,"
                " finish_reason) values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    entry.request_id,
                    entry.key_name,
                    entry.model,
                    entry.endpoint,
                    entry.tokens_in,
                    entry.tokens_out,
                    entry.started_s,
                    entry.finished_s,
                    entry.finish_reason,
                ),
            )
            connection.executemany(
                "insert into shares (request, node_id, n_steps, layer_steps, compute_s) values (?, ?, ?, ?, ?)",
                [
                    (cursor.lastrowid, share.node_id, share.n_steps, share.layer_steps, share.compute_s)
                    for share in entry.nodes
                ],
            )
        connection.execute("commit")
    except BaseException:
        if connection.in_transaction:
            connection.execute("rollback")
        raise
