"""Every request that was served is on disk, whatever the disk does meanwhile, and adds up alike by any grouping."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from decimal import Decimal
from pathlib import Path

import pytest

from swarm.errors import BadArgument
from swarm.facts import Hop, Route
from swarm.gateway.operations import ledger as ledger_module
from swarm.gateway.operations.ledger import Ledger, NodeShare, NodeTally, UsageEntry
from swarm.gateway.operations.prices import Price, PriceTable
from swarm.gateway.operations.usage import UsageReport, parse_moment, read_usage
from swarm.messages import HopTime
from swarm.terms import Address, NodeId, Profile, Span

DAY_S = 86_400.0
NOON_S = 1_767_268_800.0  # 2026-01-01T12:00:00Z
A, B, C = (NodeId(letter * 52) for letter in "abc")


def entry(
    key: str = "alice", model: str = "m", n_in: int = 10, n_out: int = 20, at_s: float = NOON_S, *nodes: NodeShare
) -> UsageEntry:
    return UsageEntry("req-1", key, model, "/v1/chat/completions", n_in, n_out, at_s - 1, at_s, "stop", nodes)


def by(report: UsageReport) -> dict[tuple[str, ...], tuple[int, float, float]]:
    return {row.group: (row.n_requests, row.tokens_in, row.tokens_out) for row in report.rows}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "usage.sqlite"


def kept(file: Path, *entries: UsageEntry) -> Path:
    ledger = Ledger(file)
    for one in entries:
        ledger.record(one)
    ledger.close()
    assert (ledger.n_lost, ledger.n_pending) == (0, 0)
    return file


def test_what_is_recorded_is_on_disk_once_closed(file: Path) -> None:
    kept(file, entry("alice"), entry("bob", n_out=5))
    kept(file, entry("alice"))  # a second run appends
    report = read_usage(file)
    assert by(report) == {("alice",): (2, 20, 40), ("bob",): (1, 10, 5)}
    assert (report.total.n_requests, report.total.tokens_in, report.total.tokens_out) == (3, 30, 45)


def test_ten_thousand_from_many_threads_are_ten_thousand(file: Path) -> None:
    ledger = Ledger(file)
    threads = [
        threading.Thread(target=lambda n=n: [ledger.record(entry(f"key{n}")) for _ in range(2500)]) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ledger.close()
    assert by(read_usage(file)) == {(f"key{n}",): (2500, 25_000, 50_000) for n in range(4)}


def test_it_can_be_read_while_it_is_written(file: Path) -> None:
    ledger = Ledger(file)
    try:
        ledger.record(entry())
        deadline = threading.Event()
        while not read_usage(file).rows and not deadline.wait(0.01):
            pass
        ledger.record(entry("bob"))
    finally:
        ledger.close()
    assert len(read_usage(file).rows) == 2


def test_recording_never_waits_and_a_busy_disk_loses_nothing(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Another process holds the write lock for longer than SQLite waits for it."""
    ledger = Ledger(file)
    blocker = sqlite3.connect(file, isolation_level=None)
    blocker.execute("begin immediate")
    for n in range(1000):
        ledger.record(entry(f"key{n % 3}"))
    deadline = threading.Event()
    for _ in range(1500):
        if "trying again" in caplog.text or deadline.wait(0.01):
            break
    assert "database is locked" in caplog.text
    assert read_usage(file).rows == []
    blocker.execute("rollback")
    blocker.close()
    ledger.close()
    assert read_usage(file).total.n_requests == 1000


def test_a_disk_that_refuses_to_the_end_is_told(
    file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "CLOSE_WITHIN_S", 0.0)
    ledger = Ledger(file)
    other = sqlite3.connect(file)
    other.execute("drop table shares")
    other.execute("drop table requests")
    other.commit()
    other.close()
    for _ in range(7):
        ledger.record(entry())
    ledger.close()
    assert ledger.n_lost == 7
    assert "no such table" in caplog.text
    assert "closed with 7 requests unwritten" in caplog.text


def test_memory_is_bounded(file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(ledger_module, "MAX_PENDING", 10)
    ledger = Ledger(file)
    blocker = sqlite3.connect(file, isolation_level=None)
    blocker.execute("begin immediate")
    for _ in range(600):  # more than the queue and the batch in the writer's hands
        ledger.record(entry())
    assert ledger.n_lost > 0
    assert "cannot keep up" in caplog.text
    blocker.execute("rollback")
    blocker.close()
    ledger.close()
    assert read_usage(file).total.n_requests + ledger.n_lost == 600


def test_a_process_that_is_killed_leaves_a_sound_ledger(file: Path) -> None:
    script = (
        "import os, sys, pathlib\n"
        "from swarm.gateway.operations.ledger import Ledger, UsageEntry\n"
        "file = pathlib.Path(sys.argv[1]); ledger = Ledger(file)\n"
        "from swarm.gateway.operations.usage import read_usage\n"
        "while read_usage(file).total.n_requests < 50:\n"
        "    ledger.record(UsageEntry('r', 'k', 'm', '/', 1, 1, 0.0, 1.0, 'stop'))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(file)], check=False, timeout=60)
    assert ended.returncode == -9
    n_before = read_usage(file).total.n_requests
    assert n_before >= 50
    kept(file, entry())
    assert read_usage(file).total.n_requests == n_before + 1
    connection = sqlite3.connect(file)
    assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
    connection.close()


@pytest.mark.parametrize("content", [b"not a database at all, but some text that is long enough" * 4, None])
def test_a_file_that_is_no_ledger_is_left_alone(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "other.sqlite"
    if content is None:
        connection = sqlite3.connect(file)
        connection.execute("create table photos (id integer)")
        connection.commit()
        connection.close()
    else:
        file.write_bytes(content)
    before = file.read_bytes()
    for use in (Ledger, read_usage):
        with pytest.raises(BadArgument, match="--ledger"):
            use(file)
    assert file.read_bytes() == before


def test_a_ledger_of_a_later_version_is_left_alone(file: Path) -> None:
    kept(file)
    connection = sqlite3.connect(file)
    connection.execute("pragma user_version = 7")
    connection.close()
    for use in (Ledger, read_usage):
        with pytest.raises(BadArgument, match="version 7"):
            use(file)


def test_no_ledger_says_how_one_comes_about(file: Path) -> None:
    with pytest.raises(BadArgument, match="name it with --ledger FILE"):
        read_usage(file)


# -- adding up -------------------------------------------------------------------------------------------------------


def test_by_node_a_request_is_split_by_the_layers_that_each_computed(file: Path) -> None:
    shares = (NodeShare(A, 20, 20 * 6, 3.0), NodeShare(B, 20, 20 * 2, 1.0))
    kept(file, entry("alice", "m", 100, 200, NOON_S, *shares), entry("bob", "m", 7, 0))
    report = read_usage(file, ["node"])
    assert by(report) == {(A,): (1, 75, 150), (B,): (1, 25, 50), ("",): (1, 7, 0)}
    assert [row.compute_s for row in report.rows] == [3.0, 1.0, 0.0]
    assert (report.total.n_requests, report.total.tokens_in, report.total.tokens_out) == (2, 107, 200)


def test_nodes_without_layers_share_alike(file: Path) -> None:
    kept(file, entry("a", "m", 10, 20, NOON_S, NodeShare(A, 1, 0, 0.0), NodeShare(B, 1, 0, 0.0)))
    assert by(read_usage(file, ["node"])) == {(A,): (1, 5, 10), (B,): (1, 5, 10)}


def test_days_are_of_utc_in_order_and_a_period_is_half_open(file: Path) -> None:
    midnight_s = NOON_S + DAY_S / 2
    kept(file, entry(n_out=1, at_s=NOON_S), entry(n_out=2, at_s=midnight_s - 0.001), entry(n_out=900, at_s=midnight_s))
    assert [row.group for row in read_usage(file, ["day"]).rows] == [("2026-01-01",), ("2026-01-02",)]
    assert read_usage(file, since_s=midnight_s).total.tokens_out == 900
    assert read_usage(file, until_s=midnight_s).total.tokens_out == 3
    assert read_usage(file, since_s=midnight_s, until_s=midnight_s).rows == []


def test_groupings_combine(file: Path) -> None:
    kept(file, entry("alice", "m"), entry("alice", "n"), entry("bob", "m", n_out=100))
    assert [row.group for row in read_usage(file, ["key", "model"]).rows] == [
        ("bob", "m"),
        ("alice", "m"),
        ("alice", "n"),
    ]
    for wrong in ([], ["key", "key"], ["key; drop table requests"]):
        with pytest.raises(BadArgument, match="grouped by"):
            read_usage(file, wrong)


def test_costs_are_exact_and_add_up_alike_by_every_grouping(file: Path) -> None:
    prices = PriceTable("EUR", {"m": Price(Decimal("0.25"), Decimal("0.75"))}, Price(Decimal("0.1"), Decimal("0.3")))
    nodes = (NodeShare(A, 3, 9, 1.0), NodeShare(B, 3, 3, 1.0))
    kept(file, *[entry("alice", model, 1000, 3000, NOON_S, *nodes) for model in ("m", "n") for _ in range(1000)])
    for grouping in (["key"], ["model"], ["node"], ["day"], ["key", "node", "model", "day"]):
        report = read_usage(file, grouping, prices=prices)
        assert report.total.cost == Decimal("3.5"), grouping
        assert sum(row.cost or 0 for row in report.rows) == Decimal("3.5")
    assert {row.group: row.cost for row in read_usage(file, ["node"], prices=prices).rows} == {
        (A,): Decimal("2.625"),
        (B,): Decimal("0.875"),
    }


def test_a_model_without_a_price_is_named_and_not_counted_as_free(file: Path) -> None:
    kept(file, entry("alice", "m"), entry("bob", "n"))
    report = read_usage(file, prices=PriceTable("EUR", {"m": Price(Decimal(1), Decimal(1))}))
    assert {row.group: row.cost for row in report.rows} == {("alice",): Decimal("0.00003"), ("bob",): None}
    assert report.unpriced == ["n"]


def route(*hops: tuple[NodeId, Span]) -> Route:
    return Route(tuple(Hop(node, Address("127.0.0.1", 1), span) for node, span in hops), Profile("fp32"))


def test_the_tally_follows_a_route_that_is_replaced() -> None:
    tally = NodeTally()
    first, second = route((A, Span(0, 6)), (B, Span(6, 8))), route((C, Span(0, 6)), (B, Span(6, 8)))
    for _ in range(3):
        tally.take((HopTime(A, 0.0, 0.5), HopTime(B, 0.0, 0.25)), first)
    tally.take((HopTime(C, 0.0, 1.0), HopTime(B, 0.0, 0.25)), second)
    assert tally.shares == (NodeShare(A, 3, 18, 1.5), NodeShare(B, 4, 8, 1.0), NodeShare(C, 1, 6, 1.0))


def test_a_stage_cannot_write_itself_a_larger_share_nor_invent_nodes() -> None:
    tally, taken = NodeTally(), route((A, Span(0, 6)), (B, Span(6, 8)))
    tally.take((HopTime(B, 0.0, 0.25),) * 256, taken)
    tally.take((HopTime(C, 0.0, 9.0), HopTime(B, 0.0, 0.25)), taken)
    tally.take((), taken)
    assert tally.shares == (NodeShare(A, 3, 18, 0.0), NodeShare(B, 3, 6, 0.5))


@pytest.mark.parametrize(
    ("text", "moment_s"),
    [
        ("2026-01-01", NOON_S - DAY_S / 2),
        ("2026-01-01T12:00", NOON_S),
        ("2026-01-01T13:00+01:00", NOON_S),
        ("2d", NOON_S - 2 * DAY_S),
        ("36h", NOON_S - 1.5 * DAY_S),
        ("90m", NOON_S - 5400),
        ("1w", NOON_S - 7 * DAY_S),
    ],
)
def test_moments(text: str, moment_s: float) -> None:
    assert parse_moment(text, NOON_S) == moment_s


@pytest.mark.parametrize("text", ["", "yesterday", "7", "7y", "-7d", "2026-13-01", "9999999d"])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(BadArgument, match="is no moment"):
        parse_moment(text, NOON_S)
