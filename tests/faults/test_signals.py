"""Interrupts: what was fetched or generated is kept, what was held is freed, and nobody reads a traceback."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swarm.sampling import SamplingParams

LOOPBACK = ("--network", "loopback")
MIB = 1 << 20
LESS_THAN_A_DRAIN_S = 20.0
"""A node that drains waits 30 s for its sessions."""


def test_an_interrupted_download_goes_on_where_it_was(cli: Any, seeded: str) -> None:
    options = ("--layers", "0:6", "--dtype", "fp32")
    first = cli.node(seeded, "node", *options, "--download-rate", 4 * MIB)
    had = first.wait_until(lambda event: event.get("event") == "progress" and event["have_bytes"] > 4 * MIB)
    assert had["have_bytes"] < had["planned_bytes"] / 2
    first.signal(signal.SIGINT)
    assert first.status() == 130
    assert "what it fetched is kept, the same command goes on from there" in first.stderr().splitlines()[-1]
    second = cli.node(seeded, "node", *options)
    ready = second.wait_for("ready", 60.0)
    assert ready["have_bytes"] >= ready["planned_bytes"]
    assert 0 < ready["fetched_bytes"] <= ready["planned_bytes"] - had["have_bytes"]


def test_an_interrupt_before_anything_was_fetched_says_so(cli: Any) -> None:
    child = cli.node(f"magnet:?xt=urn:btih:{'1' * 40}&x.pe=127.0.0.1:9", "node", "--layers", "0:6")
    child.wait_for("started", 60.0)
    child.signal(signal.SIGINT)
    assert child.status() == 130
    last = child.stderr().splitlines()[-1]
    assert "interrupted before anything was fetched" in last and "kept" not in last


def test_a_killed_download_fetches_nothing_twice_and_damage_is_mended(cli: Any, seeded: str, tmp_path: Path) -> None:
    """Beyond what was in flight, and the one piece whose file was spoilt meanwhile."""
    options = ("--layers", "0:6", "--dtype", "fp32")
    first = cli.node(seeded, "node", *options, "--download-rate", 4 * MIB)
    had = first.wait_until(lambda event: event.get("event") == "progress" and event["have_bytes"] > 4 * MIB)
    first.signal(signal.SIGKILL)
    assert first.status() == -signal.SIGKILL
    shard = next(tmp_path.glob("node/node/*/content/wordy/model-00001-of-00002.safetensors"))
    with shard.open("r+b") as file:
        file.write(b"spoilt")
    second = cli.node(seeded, "node", *options)
    ready = second.wait_for("ready", 60.0)
    assert ready["have_bytes"] >= ready["planned_bytes"]
    piece_bytes = second.wait_for("metadata", 1.0)["piece_size"]
    assert 0 < ready["fetched_bytes"] <= ready["planned_bytes"] - had["have_bytes"] + piece_bytes
    assert shard.read_bytes()[:6] != b"spoilt"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("verb", [("plan", "--layers", "0:2"), ("inspect",)], ids=lambda verb: verb[0])
def test_what_only_reads_a_release_leaves_no_folder_behind(
    tmp_path: Path, verb: tuple[str, ...], number: signal.Signals
) -> None:
    link = f"magnet:?xt=urn:btih:{'1' * 40}&x.pe=127.0.0.1:9"
    command = [sys.executable, "-m", "swarm", "release", verb[0], link, *verb[1:], *LOOPBACK, "--timeout", "600"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as ran:
        assert ran.stderr is not None
        assert ran.stderr.readline().startswith("asking the DHT, trackers and peers")
        assert [path.name for path in tmp_path.glob("swarm-*")] != []
        ran.send_signal(number)
        rest = ran.stderr.read()
    assert (ran.returncode, rest.strip()) == (130, "interrupted")
    assert list(tmp_path.glob("swarm-*")) == []


def test_an_interrupted_generation_is_resumed_with_exactly_the_rest(cli: Any, seeded: str, tmp_path: Path) -> None:
    node = cli.node(seeded, "node", "--layers", "0:6", "--dtype", "fp32")
    peer = ("--peer", node.wait_for("ready", 60.0)["address"])
    shared = (*LOOPBACK, "--data-dir", tmp_path / "client", *peer)
    asked = ("--max-tokens", 300, "--seed", 5, "--temperature", 1, "--ignore-eos")
    journal = tmp_path / "journal"

    first = cli.start("generate", seeded, "hello there", *shared, *asked, "--journal", journal)
    first.wait_until(lambda event: event.get("index") == 4)
    first.signal(signal.SIGINT)
    assert first.status() == 130
    assert "interrupted" in first.stderr()
    assert f"--resume {journal}" in first.stderr(), "what mends it"
    seen = [event["id"] for event in first.events if event["event"] == "token"]
    assert 5 <= len(seen) < 300

    resumed = cli.run("generate", seeded, *shared, "--resume", journal, "--json")
    assert resumed.returncode == 0, resumed.stderr
    whole = cli.run("generate", seeded, "hello there", *shared, *asked, "--json")
    expected = json.loads(whole.stdout.splitlines()[-1])["ids"]
    *rest, done = [json.loads(line) for line in resumed.stdout.splitlines()]
    n_journaled = len(expected) - len(rest)
    assert seen == expected[: len(seen)]
    assert len(seen) <= n_journaled <= len(seen) + 1, "a token is journaled just before it is shown"
    assert [event["id"] for event in rest] == expected[n_journaled:]
    assert done["ids"] == expected


def test_sigterm_lets_the_running_session_end_and_frees_it_everywhere(cli: Any, seeded: str, tmp_path: Path) -> None:
    first = cli.node(seeded, "first", "--layers", "0:3", "--dtype", "fp32")
    last = cli.node(seeded, "last", "--layers", "3:6", "--dtype", "fp32", "--max-sessions", 3)
    peers = [first.wait_for("ready", 60.0)["address"], last.wait_for("ready", 60.0)["address"]]
    shared = (*LOOPBACK, "--data-dir", tmp_path / "client", "--peer", peers[1])
    asked = ("--max-tokens", 200, "--temperature", 0, "--ignore-eos")
    generating = cli.start("generate", seeded, "hello", *shared, "--peer", peers[0], *asked)
    generating.wait_until(lambda event: event.get("index") == 2)
    first.signal(signal.SIGTERM)
    assert first.wait_for("draining", 20.0)["sessions"] == 1
    assert generating.status() == 0
    done = generating.events[-1]
    assert done["usage"]["completion_tokens"] == 200
    assert done["timings"]["n_replays"] == 0, "draining ends no session"
    assert first.status() == 0
    assert "Traceback" not in first.stderr()
    deadline_s = time.monotonic() + 20
    free = -1
    while free != 3 and time.monotonic() < deadline_s:
        status = json.loads(cli.run("status", seeded, *shared, "--json").stdout)
        free = next(node["free_sessions"] for node in status["nodes"] if node["address"] == peers[1])
    assert free == 3


async def test_a_second_interrupt_ends_a_draining_node_at_once(
    cli: Any, release: Callable[..., Path], local_swarm: Callable[[Path], Any]
) -> None:
    swarm = local_swarm(release("tiny-mixtral"))
    await swarm.publish()
    last = await swarm.start("3:6")
    child = cli.node(swarm.magnet, "node", "--layers", "0:3", "--dtype", "fp32")
    ready = await asyncio.to_thread(child.wait_for, "ready", 60.0)
    async with swarm.client(peers=[ready["address"], last.events["ready"][-1]["address"]]) as client:
        async with client.stream([3, 4, 5], SamplingParams(max_tokens=50, ignore_eos=True)) as stream:
            await anext(stream)  # and then nothing: the session stays open
            child.signal(signal.SIGINT)
            draining = await asyncio.to_thread(child.wait_for, "draining", 20.0)
            assert draining["sessions"] == 1
            assert child.is_running
            child.signal(signal.SIGINT)
            assert await asyncio.to_thread(child.status, LESS_THAN_A_DRAIN_S) == 130
            assert "once more to stop at once" in child.stderr()
