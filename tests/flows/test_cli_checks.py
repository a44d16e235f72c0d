"""`swarm netcheck` and `swarm doctor`: what they say of a machine where all is well, and where something is not."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swarm.cli.doctor import compare_clocks
from swarm.identity import NodeKey


def swarm(*words: object) -> tuple[int, dict[str, Any], str]:
    """(exit status, findings by name, stderr)"""
    ran = subprocess.run(
        [sys.executable, "-m", "swarm", *map(str, words), "--json"], capture_output=True, text=True, timeout=60
    )
    told = json.loads(ran.stdout.splitlines()[0])
    assert told["schema"] in ("swarm.netcheck/1", "swarm.doctor/1")
    assert all(finding["mend"] for finding in told["findings"] if finding["state"] == "bad")
    return ran.returncode, {finding["name"]: finding for finding in told["findings"]}, ran.stderr


async def test_netcheck_asks_the_nodes_of_a_release(
    release: Callable[..., Path], local_swarm: Callable[[Path], Any]
) -> None:

    swarm_of_one = local_swarm(release("tiny-mixtral"))
    magnet = await swarm_of_one.publish()
    node = await swarm_of_one.start("0:6")
    address = str((await node.event("ready"))["address"])
    status, says, _ = await asyncio.to_thread(swarm, "netcheck", magnet, "--network", "loopback", "--peer", address)
    assert status == 0
    assert {says[name]["state"] for name in ("address", "torrent", "nodes", "outward", "reach", "relay")} == {"ok"}
    assert "127.0.0.1" in says["outward"]["says"] and address in says["relay"]["says"]
    assert says["mapping"]["state"] == "note"
    _, says, _ = await asyncio.to_thread(swarm, "netcheck", magnet, "--network", "loopback")
    assert says["nodes"]["state"] == says["reach"]["state"] == says["dht"]["state"] == "ok", "the link names its seeder"
    _, says, _ = await asyncio.to_thread(swarm, "doctor", "--peer", address)
    assert says["clock"]["state"] == "ok" and "same time" in says["clock"]["says"]


def test_netcheck_without_anybody_to_ask_says_whom_to_name() -> None:
    status, says, _ = swarm("netcheck", "--network", "loopback")
    assert status == 0
    assert says["nodes"]["state"] == says["reach"]["state"] == "unknown"
    assert "--peer" in says["nodes"]["mend"] and "--bootstrap" in says["dht"]["mend"]
    assert "UDP" not in says["dht"]["mend"], "nothing leaves this machine"


def test_doctor_finds_a_sound_machine_sound_and_what_is_not(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    folders = ("--data-dir", tmp_path / "data", "--keys-dir", keys)
    status, says, _ = swarm("doctor", *folders)
    assert status == 0 and "bad" not in {finding["state"] for finding in says.values()}
    assert "--peer" in says["clock"]["mend"], "there is nobody to compare it with"
    assert "torch" in says["node"]["says"] and "free" in says["disk"]["says"]
    assert not (tmp_path / "data").exists(), "it looks, and makes nothing"

    keys.mkdir()
    NodeKey.load_or_create(keys / "mine.key")
    (keys / "mine.key").chmod(0o644)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, says, stderr = swarm("doctor", *folders, "--listen", f"127.0.0.1:{port}")
    assert status == 1
    assert {name for name, finding in says.items() if finding["state"] == "bad"} == {"keys", "port"}
    assert "chmod 600" in says["keys"]["mend"] and "port" in stderr and "keys" in stderr


@pytest.mark.parametrize(
    ("ahead_s", "state"),
    [(0.0, "ok"), (-15.0, "ok"), (4.0, "ok"), (30.0, "note"), (-60.0, "note"), (200.0, "bad"), (-300.0, "bad")],
)
def test_clocks_are_compared_as_far_as_a_fact_tells(ahead_s: float, state: str) -> None:
    """A fact that holds for 60 s is signed anew after 20, so one of 15 s ago says nothing of the clock."""
    finding = compare_clocks(NodeKey.generate().node_id, ahead_s, 60.0)
    assert finding.state == state
    assert (finding.mend == "") == (state == "ok")
