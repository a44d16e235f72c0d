"""Magnets that are no magnets, that are half mangled, and that nobody seeds: each verb says so, in time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

LOOPBACK = ("--network", "loopback")
DEADLINE_S = 30.0
"""For a process to start and end on a busy machine. By itself no verb gives up a magnet sooner than after 60 s."""


@pytest.mark.parametrize(
    ("verb", "magnet", "why"),
    [
        ("generate", "https://example.invalid/model", "not a magnet link"),
        ("node start", "magnet:?xt=urn:btih:1234", "1234"),
        ("status", "magnet:?dn=nameless", "no infohash"),
        ("release inspect", "magnet:?xt=urn:sha1:00", "no infohash"),
    ],
)
def test_what_is_no_magnet_is_a_usage_error_of_every_verb(
    cli: Any, tmp_path: Path, verb: str, magnet: str, why: str
) -> None:
    rest = ("hello",) if verb == "generate" else ()
    data_dir = () if verb == "release inspect" else ("--data-dir", tmp_path / "data")
    assert why in cli.fail(*verb.split(), magnet, *rest, *LOOPBACK, *data_dir, status=2)
    assert not (tmp_path / "data").exists(), "nothing is made for a magnet that names nothing"


def test_a_mangled_tracker_costs_a_warning_and_nothing_else(cli: Any, seeded: str, tmp_path: Path) -> None:
    head, _, peers = seeded.partition("&x.pe=")
    mangled = f"{head}&tr=%ZZhttp:/not a tracker&tr=&tr=http%253A%252F%252F127.0.0.1%253A1%252Fannounce&x.pe={peers}"
    inspected = cli.run("release", "inspect", mangled, "--json", *LOOPBACK)
    assert inspected.returncode == 0, inspected.stderr
    assert json.loads(inspected.stdout)["name"] == "wordy"
    assert "warning: " in inspected.stderr
    node = cli.node(mangled, "node", "--layers", "0:6", "--dtype", "fp32")
    address = node.wait_for("ready", 60.0)["address"]
    wanted = ("--peer", address, "--data-dir", tmp_path / "client", "--max-tokens", 2, "--temperature", 0, "--json")
    generated = cli.run("generate", mangled, "hello", *LOOPBACK, *wanted)
    assert generated.returncode == 0, generated.stderr
    assert json.loads(generated.stdout.splitlines()[-1])["usage"]["completion_tokens"] == 2


@pytest.mark.parametrize("verb", ["generate", "node start", "release inspect"])
def test_a_magnet_that_nobody_seeds_says_what_was_tried(cli: Any, copy: Path, tmp_path: Path, verb: str) -> None:
    tracker = "http://127.0.0.1:1/announce"
    magnet = cli.create(copy, "--tracker", tracker, "--torrent-peer", "127.0.0.1:9", "--torrent-peer", "127.0.0.1:7")
    rest = ("hello",) if verb == "generate" else ()
    data_dir = () if verb == "release inspect" else ("--data-dir", tmp_path / "data")
    command = (*verb.split(), magnet, *rest, *LOOPBACK, *data_dir, "--timeout", 2)
    message = cli.fail(*command, status=5, timeout_s=DEADLINE_S)
    assert "within 2 s" in message
    assert f"{tracker} (" in message, "each tracker comes with its outcome"
    assert "127.0.0.1:9 (" in message
    assert "127.0.0.1:7 (" in message
    assert "DHT: " in message
    assert "x.pe=HOST:PORT" in message, "what would mend it"
