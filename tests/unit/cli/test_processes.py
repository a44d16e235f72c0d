"""Children that speak NDJSON: events, deaths, stubbornness, and that nobody is left behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.cli import processes
from swarm.cli.processes import Child, parse_event, stop_all
from swarm.errors import SwarmError

READY = 'import json, sys; print(json.dumps({"event": "ready", "n": 1}), flush=True);'
WAIT = "import signal; signal.pause()"
STUBBORN = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN);"


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Starts children that run a script in place of `python -m swarm`."""
    children: list[Child] = []
    popen = processes.subprocess.Popen

    def run_script(command: list[str], **rest: object) -> object:
        return popen([command[0], "-c", command[3]], **rest)  # type: ignore[call-overload]

    monkeypatch.setattr(processes.subprocess, "Popen", run_script)

    def start(script: str, name: str = "node 1") -> Child:
        children.append(Child(name, [script], tmp_path / f"{len(children)}.log"))
        return children[-1]

    yield start
    stop_all(children, grace_s=0.0)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_events_are_waited_for_and_kept(start) -> None:  # type: ignore[no-untyped-def]
    child = start('print(\'{"event": "started", "x": 2}\', flush=True);' + READY + WAIT)
    assert child.wait_for("ready", 20)["n"] == 1
    assert child.wait_for("started", 0)["x"] == 2
    assert child.wait_for("ready", 0)["n"] == 1


def test_a_child_that_dies_is_noticed_at_once_and_its_words_are_told(start) -> None:  # type: ignore[no-untyped-def]
    child = start('import sys; print("error: no disk, because; mend it", file=sys.stderr); sys.exit(6)')
    with pytest.raises(SwarmError) as raised:
        child.wait_for("ready", 60)
    assert "did not report" not in raised.value.message, "its end is what is told, not the deadline"
    for words in (
        "node 1",
        f"pid {child.pid}",
        "ended with status 6",
        "error: no disk, because; mend it",
        str(child.log),
    ):
        assert words in raised.value.message


def test_words_on_stdout_that_are_no_events_are_told_too(start) -> None:  # type: ignore[no-untyped-def]
    child = start('print("neither json"); print("[1]")')
    with pytest.raises(SwarmError, match="neither json"):
        child.wait_for("ready", 60)


def test_a_silent_child_runs_into_the_deadline(start) -> None:  # type: ignore[no-untyped-def]
    child = start(READY + WAIT)
    child.wait_for("ready", 20)
    with pytest.raises(SwarmError, match=r"did not report 'done' within 0 s"):
        child.wait_for("done", 0.05)


def test_waiting_for_the_end_takes_every_event_in(start) -> None:  # type: ignore[no-untyped-def]
    child = start(READY)
    child.wait_for_end(20)
    assert [event["event"] for event in child.events] == ["ready"]
    with pytest.raises(SwarmError, match="status 3"):
        start("raise SystemExit(3)").wait_for_end(20)
    with pytest.raises(SwarmError, match="was not done within"):
        start(WAIT).wait_for_end(0.05)


def test_all_are_interrupted_and_the_stubborn_are_killed(start) -> None:  # type: ignore[no-untyped-def]
    polite, stubborn = (
        start(READY + WAIT, "polite"),
        start(STUBBORN + READY + "\nwhile True: signal.pause()", "stubborn"),
    )
    for child in (polite, stubborn):
        child.wait_for("ready", 20)
    assert [child.name for child in stop_all([polite, stubborn], grace_s=1.0)] == ["stubborn"]
    assert not is_alive(polite.pid)
    assert not is_alive(stubborn.pid)
    assert stop_all([polite, stubborn], grace_s=1.0) == []


def test_an_interrupt_while_stopping_leaves_nobody_behind(start, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    child = start(STUBBORN + READY + "\nwhile True: signal.pause()")
    child.wait_for("ready", 20)
    end_by, calls = child.end_by, []

    def interrupted_once(deadline_s: float) -> bool:
        calls.append(deadline_s)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return bool(end_by(deadline_s))

    monkeypatch.setattr(child, "end_by", interrupted_once)
    assert stop_all([child], grace_s=60.0) == [child]
    assert not is_alive(child.pid)


def test_only_objects_are_events() -> None:
    assert parse_event(b'{"event": "x"}\n') == {"event": "x"}
    assert parse_event(b"[1]\n") is None
    assert parse_event(b"\xff\n") is None
