"""What a node says while it fetches: on a terminal, in a log, and to a program."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

OPTIONS = ("--network", "loopback", "--layers", "0:6", "--dtype", "fp32", "--download-rate", "2000000")
SAID = re.compile(
    r"(\d+) pieces of (\d+) pieces \(\d+%\), [\d.]+ .?B/s down, [\d.]+ .?B/s up, \d+ peers, \d/6 layers ready, .+ left"
)
FIELDS = {
    "pieces_here", "pieces_planned", "download_rate", "upload_rate", "n_peers", "layers_loaded", "layers_total",
    "left_s", "needed_bytes", "fetched_bytes", "found_bytes", "release_bytes",
}  # fmt: skip


def test_a_program_is_told_by_lines_of_json(cli: Any, seeded: str) -> None:
    node = cli.node(seeded, "node", *OPTIONS[2:])
    told = node.wait_until(lambda event: event["event"] == "progress" and bool(event["left_s"]))
    assert told.keys() >= FIELDS
    assert told["left_s"] > 0
    assert told["n_peers"] >= 1


def test_a_log_gets_lines_and_a_terminal_a_bar(seeded: str, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    reader, log = os.pipe()
    nodes = [start(seeded, tmp_path / str(write_to), write_to) for write_to in (slave, log)]
    try:
        drawn, told = (read_until(read_from, SAID, 60.0) for read_from in (master, reader))
        assert "\x1b[" in drawn, "a bar is drawn in place"
        assert "\x1b[" not in told
    finally:
        for node, read_from in zip(nodes, (master, reader), strict=True):
            threading.Thread(target=drain, args=(read_from,), daemon=True).start()
            node.send_signal(signal.SIGINT)
            node.wait(30)
        os.close(slave)
        os.close(log)


def start(magnet: str, data_dir: Path, stderr: int) -> subprocess.Popen[bytes]:
    null, environment = subprocess.DEVNULL, {**os.environ, "COLUMNS": "160", "TERM": "xterm"}
    command = [sys.executable, "-m", "swarm", "node", "start", magnet, *OPTIONS, "--data-dir", str(data_dir)]
    return subprocess.Popen(command, stdin=null, stdout=null, stderr=stderr, env=environment)


def read_until(descriptor: int, words: re.Pattern[str], timeout_s: float) -> str:
    said, deadline_s = "", time.monotonic() + timeout_s
    while not words.search(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said)):
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline_s - time.monotonic()))
        assert ready, said
        said += os.read(descriptor, 1 << 16).decode("utf-8", "replace")
    return said


def drain(descriptor: int) -> None:
    """So that nobody waits for a reader until everybody has closed it."""
    try:
        while os.read(descriptor, 1 << 16):
            pass
    except OSError:
        pass
