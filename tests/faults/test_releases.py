"""Releases that cannot be run: refused where they are made, inspected, and where they would be hosted."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from swarm.torrent import create_torrent

LOOPBACK = ("--network", "loopback")


def other_architecture(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    changed = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    (folder / "config.json").write_text(json.dumps({**config, **changed}))


def corrupt_config(folder: Path) -> None:
    path = folder / "config.json"
    path.write_bytes(path.read_bytes()[:-20])


def missing_shard(folder: Path) -> None:
    sorted(folder.glob("*.safetensors"))[-1].unlink()


def truncated_shard(folder: Path) -> None:
    path = sorted(folder.glob("*.safetensors"))[-1]
    path.write_bytes(path.read_bytes()[:-4096])


@pytest.mark.parametrize(
    ("damage", "status", "words"),
    [
        (other_architecture, 1, ["LlamaForCausalLM", "Mistral", "Mixtral"]),
        (corrupt_config, 8, ["config.json", "JSON"]),
        (missing_shard, 8, ["model-00002-of-00002.safetensors"]),
        (truncated_shard, 8, ["model-00002-of-00002.safetensors"]),
    ],
)
def test_a_release_that_cannot_be_run(
    cli: Any, copy: Path, tmp_path: Path, damage: Any, status: int, words: list[str]
) -> None:
    damage(copy)
    torrent = tmp_path / "elsewhere" / "copy.torrent"
    torrent.parent.mkdir()
    torrent.write_bytes(create_torrent(copy, piece_size=64 << 10).data)  # made with other tools, all the same
    magnet = cli.seed(torrent, "--dir", tmp_path)
    patience = ("--timeout", 20, *LOOPBACK)
    commands: list[tuple[object, ...]] = [
        ("node", "start", magnet, *patience, "--data-dir", tmp_path / "node"),
        ("release", "create", copy),
        ("release", "inspect", copy),
        ("release", "inspect", magnet, *patience),
    ]
    if damage in (other_architecture, corrupt_config):  # a client reads the config and no weights
        commands.append(("generate", magnet, "hello", *patience, "--data-dir", tmp_path / "client"))
    with ThreadPoolExecutor(2) as pool:
        for message in pool.map(lambda command: cli.fail(*command, status=status), commands):
            assert all(word in message for word in words), message
    assert not (tmp_path / "copy.torrent").exists()
