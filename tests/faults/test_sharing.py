"""Several nodes of one machine and data folder: one download, which the others continue when its process is killed."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

from swarm.torrent import Magnet

MIB = 1 << 20


def test_a_second_node_fetches_nothing_that_the_first_has_and_takes_over_when_it_is_killed(
    cli: Any, seeded: str, tmp_path: Path
) -> None:
    options = ("--dtype", "fp32", "--timeout", 30)
    first = cli.node(seeded, "shared", "--layers", "0:3", "--download-rate", 6 * MIB, *options)
    first.wait_for("layout", 60.0)
    second = cli.node(seeded, "shared", "--layers", "0:6", *options)
    here = second.wait_for("started", 60.0)
    assert here["node_id"] != first.wait_for("started", 1.0)["node_id"]
    second.wait_for("layout", 60.0)
    first.signal(signal.SIGKILL)
    ready = second.wait_for("ready", 60.0)
    assert ready["layers_loaded"] == 6
    assert ready["have_bytes"] >= ready["needed_bytes"]
    assert len(list(tmp_path.glob("shared/node/*/*.key"))) == 2
    second.signal(signal.SIGTERM)
    assert second.status() == 0


def test_status_tells_what_a_node_fetched_from_what_it_found_and_what_it_gives(
    cli: Any, seeded: str, tmp_path: Path
) -> None:
    """The second node finds what the first fetched; a third, elsewhere, takes it from the first and its peers."""
    options = ("--dtype", "fp32", "--timeout", 30, "--layers", "0:6")
    first = cli.node(seeded, "shared", *options)
    address = first.wait_for("ready", 60.0)["address"]
    second = cli.node(seeded, "shared", *options)
    found = second.wait_for("ready", 60.0)
    assert found["fetched_bytes"] == 0
    assert found["found_bytes"] >= found["needed_bytes"]
    bare = Magnet.parse(seeded)
    third = cli.node(str(Magnet(bare.v1, None, bare.name)), "elsewhere", *options, "--peer", address)
    third.wait_for("ready", 60.0)
    first.wait_until(lambda event: event.get("share_ratio") or 0.0)
    ids = [node.wait_for("started", 1.0)["node_id"] for node in (first, second)]
    shared = ("--json", "--network", "loopback", "--data-dir", tmp_path / "client", "--peer", address)
    deadline_s = time.monotonic() + 60.0
    nodes: dict[str, dict[str, Any]] = {}
    while not nodes.keys() >= set(ids) and time.monotonic() < deadline_s:  # until the first has met the second
        told = json.loads(cli.run("status", seeded, *shared).stdout)
        nodes = {node["node_id"]: node for node in told["nodes"]}
    assert nodes[ids[0]]["fetched_bytes"] >= nodes[ids[0]]["needed_bytes"]
    given, taken = (nodes[ids[0]][name] for name in ("uploaded_bytes", "downloaded_bytes"))
    assert taken >= nodes[ids[0]]["fetched_bytes"]
    assert nodes[ids[0]]["share_ratio"] == round(given / taken, 4) > 0
    assert (nodes[ids[1]]["fetched_bytes"], nodes[ids[1]]["found_bytes"]) == (0, found["found_bytes"])
