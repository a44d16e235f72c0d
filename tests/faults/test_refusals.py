"""A swarm that lacks something, and commands that ask for what cannot be: told in one line, with what mends it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from swarm.client import connect
from swarm.errors import NoNodesFound
from swarm.rpc import RpcConfig

LOOPBACK = ("--network", "loopback")


@pytest.fixture
def taken() -> Iterator[str]:
    """The address of a port that somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def warm(seeded: str, tmp_path: Path) -> Path:
    """A client's data dir that has the release's files: a short --timeout is then for finding nodes alone."""
    with connect(seeded, network="loopback", data_dir=tmp_path / "client", timeout_s=60.0) as client:
        assert client.release.name == "wordy"
    return tmp_path / "client"


def test_no_node_at_all(cli: Any, seeded: str, warm: Path, tmp_path: Path) -> None:
    options = (*LOOPBACK, "--data-dir", warm, "--timeout", 6, "--peer", "127.0.0.1:9")
    command = ("generate", seeded, "hello", *options, "--journal", tmp_path / "journal")
    message = cli.fail(*command, status=4)
    assert "no node of this release was found within 6 s" in message
    assert "127.0.0.1:9: " in message, "each peer comes with its outcome"
    assert "DHT: " in message
    assert "swarm node start MAGNET" in message
    assert cli.fail(*command, status=4) == message, "a journal that never began is no hindrance"


async def test_a_peer_that_says_nothing_does_not_outlast_the_timeout(
    release: Callable[..., Path], local_swarm: Callable[[Path], Any], taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    swarm = local_swarm(release("tiny-mixtral"))
    await swarm.publish()
    async with swarm.client() as warm:  # the files are here from now on: what follows waits for nodes alone
        assert warm.release.name
    # Whoever waits for the connection to end waits for ten minutes.
    monkeypatch.setattr(RpcConfig, "loopback", lambda: RpcConfig(connect_timeout_s=600.0))
    async with swarm.client(peers=[taken], timeout_s=1.0) as client:
        with pytest.raises(NoNodesFound, match=f"within 1 s.*{taken}: ") as caught:
            async with asyncio.timeout(30.0):
                await client.generate([3, 4, 5])
        assert caught.value.exit_code == 4


def test_the_layers_that_nobody_hosts_are_named(cli: Any, seeded: str, warm: Path) -> None:
    node = cli.node(seeded, "node", "--layers", "1:4", "--dtype", "fp32")
    options = (*LOOPBACK, "--data-dir", warm, "--timeout", 6, "--json")
    peer = ("--peer", node.wait_for("ready", 60.0)["address"])
    ran = cli.run("generate", seeded, "hello", *options, *peer)
    assert ran.returncode == 4, ran.stderr
    told = json.loads(ran.stdout.splitlines()[-1])
    assert (told["error"], told["exit_code"], told["layers"]) == ("LayersUncovered", 4, [0, 4, 5])
    assert "0" in told["message"]
    assert "4" in told["message"]
    assert "swarm node start MAGNET --layers" in told["message"]


def test_a_prompt_longer_than_the_context(cli: Any, seeded: str, tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("one two three four five six seven eight " * 80)
    options = (*LOOPBACK, "--data-dir", tmp_path / "client", "--timeout", 20)
    message = cli.fail("generate", seeded, "--file", tmp_path / "prompt.txt", *options, status=2)
    assert "wordy sees 512 at a time" in message
    assert "shorten it" in message


@pytest.mark.parametrize("what", ["gRPC", "BitTorrent"])
def test_a_node_whose_port_is_taken(cli: Any, seeded: str, tmp_path: Path, taken: str, what: str) -> None:
    flag = ("--listen", taken) if what == "gRPC" else ("--torrent-port", taken.partition(":")[2])
    options = (*LOOPBACK, "--data-dir", tmp_path / "node", "--layers", "0:1", "--timeout", 20)
    message = cli.fail("node", "start", seeded, *flag, *options, status=1)
    assert taken in message
    assert "in use" in message
    assert "another" in message, "what mends it"


def test_a_seeder_whose_port_is_taken(cli: Any, wordy: Path, taken: str) -> None:
    message = cli.fail("release", "seed", wordy, *LOOPBACK, "--listen", taken, status=1)
    assert taken in message
    assert "in use" in message
    assert "another" in message
