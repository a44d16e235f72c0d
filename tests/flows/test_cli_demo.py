"""`swarm demo`, as a newcomer runs it: one command, a whole swarm, nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from swarm.cli.demo import KILL_AFTER_TOKENS, QUESTIONS

DEADLINE_S = 170.0


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "config.toml").touch()
    (tmp_path / "tmp").mkdir()
    return {**os.environ, "SWARM_CONFIG": str(tmp_path / "config.toml"), "TMPDIR": str(tmp_path / "tmp")}


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_demo_talks_loses_a_node_and_leaves_nothing_behind(environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "swarm", "demo", "--json"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE_S)
    assert ran.returncode == 0, ran.stderr
    events = [json.loads(line) for line in ran.stdout.splitlines()]
    kinds = [e["event"] for e in events if e["event"] not in ("token", "question", "answer")]
    assert kinds == ["seeding", *["node"] * 4, "killed", "checked", "stopped"]
    nodes = [e for e in events if e["event"] == "node"]
    answers = [e for e in events if e["event"] == "answer"]
    assert [node["layers"] for node in nodes] == ["0:2", "2:4", "4:6", "2:4"]
    for ready in (node["ready"] for node in nodes):
        # Whole pieces: a little more than it needs, and well below the whole release.
        assert ready["needed_bytes"] <= ready["fetched_bytes"] <= 1.2 * ready["needed_bytes"]
        assert ready["fetched_bytes"] < 0.5 * ready["release_bytes"]
    assert [e["text"] for e in events if e["event"] == "question"] == list(QUESTIONS)
    assert answers[2]["text"] == "17 + 25 = 42."
    assert answers[3]["text"] == "le bateau rouge"
    assert {answer["finish_reason"] for answer in answers} == {"stop"}
    assert [hop["layers"] for hop in answers[-1]["route"]["hops"]] == ["0:2", "2:4", "4:6"]
    checked = events[-2]
    killed = next(e for e in events if e["event"] == "killed")
    assert killed["node_id"] in [node["node_id"] for node in nodes]
    assert killed["node_id"] not in [hop["node_id"] for hop in answers[-1]["route"]["hops"]]
    assert checked["n_replays"] == 1
    assert checked["n_tokens"] == len(answers[-1]["ids"]) > KILL_AFTER_TOKENS
    assert "did not stop" not in ran.stderr
    assert not any(is_alive(event["pid"]) for event in events if "pid" in event)
    assert list(Path(environment["TMPDIR"]).glob("swarm-demo-*")) == []


def test_chat_demo_answers_and_leaves_nothing_behind(environment: dict[str, str]) -> None:
    """Piped, as a test of one's own would: each line is a turn, and the conversation is remembered."""
    command = [sys.executable, "-m", "swarm", "chat", "demo", "--temperature", "0", "--json"]
    lines = "My name is Theo.\nWhat is my name?\n"
    ran = subprocess.run(command, env=environment, input=lines, capture_output=True, text=True, timeout=DEADLINE_S)
    assert ran.returncode == 0, ran.stderr
    events = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [e["text"] for e in events if e["event"] == "done"][-1] == "Your name is Theo."
    assert list(Path(environment["TMPDIR"]).glob("swarm-demo-*")) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_interrupted_takes_its_children_with_it(environment: dict[str, str], number: int) -> None:
    command = [sys.executable, "-m", "swarm", "demo", "--json"]
    with tempfile.TemporaryFile() as stderr:
        demo = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True)
        assert demo.stdout is not None
        with demo.stdout as stdout:
            events = []
            for line in stdout:
                events.append(json.loads(line))
                if events[-1]["event"] == "seeding":
                    demo.send_signal(number)
            status = demo.wait(DEADLINE_S)
        stderr.seek(0)
        said = stderr.read().decode()
    # A shell reports both as 130: when the interrupt meets an exec of source text (a dataclass is made so), CPython
    # remembers it, and ends a `python -m` by SIGINT after everything was done.
    assert status in (130, -signal.SIGINT), said
    assert events[-1]["error"] == "Interrupted"
    pids = [event["pid"] for event in events if "pid" in event]
    deadline_s = time.monotonic() + 5
    while any(is_alive(pid) for pid in pids) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert pids
    assert not any(is_alive(pid) for pid in pids)
    assert list(Path(environment["TMPDIR"]).glob("swarm-demo-*")) == []
