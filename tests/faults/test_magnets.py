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


@pytest.mark.parametrize("verb", ["generate", "chat", "status", "top", "node start"])
def test_a_name_of_the_catalogue_stands_for_its_link_in_every_verb(cli: Any, tmp_path: Path, verb: str) -> None:
    """Nobody seeds it on loopback: the verb comes as far as asking for that very torrent, and says so."""
    extra = ("hello",) if verb == "generate" else ()
    command = (*verb.split(), "Mixtral-8x22B", *extra, *LOOPBACK, "--data-dir", tmp_path / "data", "--timeout", 3)
    ran = cli.run(*command, timeout_s=DEADLINE_S)
    assert ran.returncode == 5, ran.stderr
    *told, error = ran.stderr.strip().splitlines()
    assert any(line.startswith("asking the DHT, trackers and peers for the metadata of mixtral-8x22b") for line in told)
    assert "metadata of torrent 9238b09245d0d8cd915be09927769d5f7584c1c9" in error
    assert "`swarm netcheck`" in error


@pytest.mark.parametrize("verb", ["release plan", "release inspect"])
def test_a_verb_that_can_ask_nobody_says_so_at_once(cli: Any, verb: str) -> None:
    """The catalogue's trackers are elsewhere, and on loopback these verbs meet nobody whom nothing names."""
    layers = ("--layers", "0:2") if verb == "release plan" else ()
    error = cli.fail(*verb.split(), "Mixtral-8x22B", *layers, *LOOPBACK, "--timeout", 600, status=5)
    assert "torrent 9238b09245d0d8cd915be09927769d5f7584c1c9" in error, "the name stands for its link"
    assert "--network wan" in error


@pytest.mark.parametrize("verb", ["release plan", "release inspect"])
def test_a_link_may_be_longer_than_the_name_of_a_file(cli: Any, verb: str) -> None:
    trackers = "".join(f"&tr=http%3A%2F%2F127.0.0.1%3A1%2Fannounce-{i:0100}" for i in range(4))
    layers = ("--layers", "0:2") if verb == "release plan" else ()
    command = (*verb.split(), f"magnet:?xt=urn:btih:{'1' * 40}{trackers}", *layers, *LOOPBACK, "--timeout", 1)
    assert "nobody gave us the metadata" in cli.fail(*command, status=5, timeout_s=DEADLINE_S)


@pytest.mark.parametrize("verb", ["generate", "chat", "status", "top", "node start", "netcheck", "release inspect"])
def test_what_is_no_name_either_is_told_with_the_names_that_are_close(cli: Any, tmp_path: Path, verb: str) -> None:
    rest = ("hello",) if verb == "generate" else ()
    assert "did you mean mixtral-8x22b?" in cli.fail(*verb.split(), "mixtral-8x22", *rest, *LOOPBACK, status=2)


@pytest.mark.parametrize("verb", ["status", "top", "node start", "netcheck"])
def test_demo_is_refused_where_no_swarm_is_started_for_it(cli: Any, verb: str) -> None:
    assert "`demo` is a swarm that" in cli.fail(*verb.split(), "demo", *LOOPBACK, status=2)


@pytest.mark.parametrize("verb", ["status", "node start", "gateway"])
def test_a_peer_that_is_no_address_is_named(cli: Any, tmp_path: Path, verb: str) -> None:
    """A gateway never gives up a link: it is ended by an address that it takes no calls at without a key."""
    link = f"magnet:?xt=urn:btih:{'1' * 40}&x.pe=127.0.0.1:notaport"
    end = ("--no-ledger", "--listen", "203.0.113.1:1") if verb == "gateway" else ("--timeout", 1)
    ran = cli.run(*verb.split(), link, *LOOPBACK, *end, "--data-dir", tmp_path / "data", timeout_s=DEADLINE_S)
    assert ran.returncode == (2 if verb == "gateway" else 5), ran.stderr
    assert "warning: left out peer '127.0.0.1:notaport': " in ran.stderr


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
