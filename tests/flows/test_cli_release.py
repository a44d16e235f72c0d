"""A release's life at the command line: created, inspected, seeded and read over BitTorrent by other processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from node.weights import PRESETS, write_preset
from swarm.cli.processes import Child, stop_all

DEADLINE_S = 60.0
PRESET = "tiny-mixtral"
LOOPBACK = ("--network", "loopback")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small release; tests that change it copy it first."""
    folder = tmp_path_factory.mktemp("releases") / "tiny"
    write_preset(PRESET, folder)
    return folder


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    copied = tmp_path / folder.name
    copied.mkdir()
    for path in folder.iterdir():
        (copied / path.name).write_bytes(path.read_bytes())
    return copied


@pytest.fixture(autouse=True)
def no_config_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.toml").touch()
    monkeypatch.setenv("SWARM_CONFIG", str(tmp_path / "config.toml"))


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """Starts `swarm …` processes, and ends those that the test left running."""
    children: list[Child] = []

    def start(*arguments: str) -> Child:
        children.append(Child(arguments[0], arguments, tmp_path / f"{len(children)}.log"))
        return children[-1]

    yield start
    stop_all(children)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "swarm", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)


def run_json(*arguments: str) -> dict[str, Any]:
    ran = run(*arguments, "--json")
    assert ran.returncode == 0, ran.stderr
    fields: dict[str, Any] = json.loads(ran.stdout)
    return fields


def seed(start: Callable[..., Child], source: Path, *options: str) -> tuple[Child, str]:
    child = start("release", "seed", str(source), "--json", *LOOPBACK, "--listen", "127.0.0.1:0", *options)
    return child, str(child.wait_for("seeding", DEADLINE_S)["magnet"])


def stop(child: Child, number: int) -> None:
    os.kill(child.pid, number)
    child.wait_for_end(DEADLINE_S)


# -- create --------------------------------------------------------------------------------------------------------


def test_create_writes_the_torrent_and_ends_with_the_magnet(copy: Path) -> None:
    options = ("--tracker", "http://127.0.0.1:1/announce", "--torrent-peer", "127.0.0.1:4")
    ran = run("release", "create", str(copy), *options)
    assert ran.returncode == 0, ran.stderr
    *_, path, magnet = ran.stdout.splitlines()
    assert Path(path) == copy.parent / "tiny.torrent"
    assert Path(path).stat().st_size > 0
    assert magnet.startswith("magnet:?xt=urn:btih:")
    assert "dn=tiny" in magnet
    assert "tr=http" in magnet
    assert magnet.endswith("x.pe=127.0.0.1:4")


def test_the_same_bytes_have_the_same_name_wherever_they_lie(folder: Path, copy: Path, tmp_path: Path) -> None:
    ours = run_json("release", "create", str(folder), "-o", str(tmp_path / "a.torrent"))
    theirs = run_json("release", "create", str(copy), "-o", str(tmp_path / "b.torrent"))
    assert ours["infohash"] == theirs["infohash"]
    assert (tmp_path / "a.torrent").read_bytes() == (tmp_path / "b.torrent").read_bytes()
    other = run_json("release", "create", str(copy), "-o", str(tmp_path / "c.torrent"), "--piece-size", "16384")
    assert other["piece_size"] == 16384


@pytest.mark.parametrize("break_it", ["no config", "no weights", "short shard"])
def test_what_is_no_release_is_not_made_into_one(copy: Path, break_it: str) -> None:
    shard = sorted(copy.glob("*.safetensors"))[0]
    if break_it == "no config":
        (copy / "config.json").unlink()
    elif break_it == "no weights":
        for path in copy.glob("*.safetensors*"):
            path.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:-1])
    ran = run("release", "create", str(copy), "--json")
    assert ran.returncode == 8
    assert json.loads(ran.stdout)["error"] == "CorruptRelease"
    assert not (copy.parent / "tiny.torrent").exists()


def test_impossible_arguments_are_usage_errors(copy: Path) -> None:
    assert run("release", "create", str(copy / "nothing")).returncode == 2
    assert run("release", "create", str(copy), "--piece-size", "100000").returncode == 2
    assert run("release", "seed", str(copy), "--dir", str(copy.parent), *LOOPBACK).returncode == 2
    assert run("release", "seed", str(copy), "--listen", "127.0.0.1:0", "--network", "wan").returncode == 2
    assert run("release", "inspect", "nothing-of-this-name").returncode == 2
    assert run("release", "inspect", "magnet:?dn=x").returncode == 2


# -- inspect -------------------------------------------------------------------------------------------------------


def test_inspect_tells_what_the_config_says(folder: Path) -> None:
    args = PRESETS[PRESET].args
    fields = run_json("release", "inspect", str(folder))
    assert fields["schema"] == "swarm.release.inspect/1"
    assert (fields["architecture"], fields["n_layers"], fields["n_experts"]) == ("mixtral", args.n_layers, 8)
    assert fields["n_params"] == args.n_params
    assert fields["layer_bytes"] == 2 * args.n_layer_params
    assert fields["layer_bytes"] == fields["trunk_bytes"] + 8 * fields["expert_bytes"]
    assert fields["licence"] == "apache-2.0"
    text = run("release", "inspect", str(folder)).stdout
    assert "mixtral" in text
    assert "8 experts each, 2 per token" in text


def test_a_torrent_beside_its_data_is_inspected_without_any_network(copy: Path) -> None:
    created = run_json("release", "create", str(copy))
    fields = run_json("release", "inspect", created["torrent"])
    assert fields["infohash"] == created["infohash"]
    assert "fetched_bytes" not in fields


def test_a_magnet_nobody_answers_for_ends_with_5_and_says_what_was_tried(copy: Path) -> None:
    magnet = run_json("release", "create", str(copy), "--torrent-peer", "127.0.0.1:9")["magnet"]
    ran = run("release", "inspect", magnet, *LOOPBACK, "--timeout", "0.5")
    assert ran.returncode == 5
    assert "127.0.0.1:9" in ran.stderr


# -- seed ----------------------------------------------------------------------------------------------------------


def test_a_seeded_release_is_inspected_from_its_magnet_alone(start: Callable[..., Child], copy: Path) -> None:
    created = run_json("release", "create", str(copy), "--piece-size", "16384")
    child, magnet = seed(start, copy)
    remote = run_json("release", "inspect", magnet, *LOOPBACK)
    assert (remote["infohash"], remote["piece_size"]) == (created["infohash"], 16384)
    local = run_json("release", "inspect", str(copy))
    (planned,) = run_json("release", "plan", magnet, "--layers", "0:2", "--experts", "4:1", *LOOPBACK)["rows"]
    assert [planned] == run_json("release", "plan", str(copy), "--layers", "0:2", "--experts", "4:1")["rows"]
    extra = {"infohash", "piece_size", "n_pieces", "fetched_bytes", "signature"}
    assert (remote["signature"], local.pop("signature")) == ("unsigned: known by its infohash alone", "unsigned")
    assert {key: value for key, value in remote.items() if key not in extra} == local
    # Heads and configs only: whole pieces, so somewhat more than they are, and far from the whole.
    assert 0 < remote["fetched_bytes"] < 0.2 * remote["total_bytes"]
    stop(child, signal.SIGTERM)
    assert child.events[-1]["event"] == "stopped"
    assert child.events[-1]["uploaded_bytes"] >= remote["fetched_bytes"]


def test_a_folder_is_hashed_once_and_again_only_when_it_changed(start: Callable[..., Child], copy: Path) -> None:
    child, magnet = seed(start, copy)
    stop(child, signal.SIGINT)
    torrent = copy.parent / "tiny.torrent"
    written_ns = torrent.stat().st_mtime_ns
    child, again = seed(start, copy)
    stop(child, signal.SIGINT)
    assert torrent.stat().st_mtime_ns == written_ns
    assert again.partition("&x.pe")[0] == magnet.partition("&x.pe")[0]

    (copy / "README.md").write_text("x".join((copy / "README.md").read_text().rsplit("e", 1)))  # the same length
    child, changed = seed(start, copy)
    stop(child, signal.SIGINT)
    assert changed.partition("&x.pe")[0] != magnet.partition("&x.pe")[0]
    assert "no longer matches" in child.log.read_text()


def tree(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Everything below a folder: modification time, size, and where links point."""
    found = sorted(folder.rglob("*"))
    stats = {path.relative_to(folder).as_posix(): (path, path.lstat()) for path in found}
    return {
        name: (stat.st_mtime_ns, stat.st_size, str(path.readlink()) if path.is_symlink() else "")
        for name, (path, stat) in stats.items()
    }


def test_the_hubs_cache_is_seeded_as_it_is(
    start: Callable[..., Child], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its snapshots are links into blobs. Nothing is written there, and the hub is the torrent's web seed."""
    commit = "5f0b02c75b57c5855da9ae460ce51323ea669d8a"
    repository = tmp_path / "hub" / "models--org--tiny"
    (snapshot := repository / "snapshots" / commit).mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    for number, path in enumerate(sorted(folder.iterdir())):
        (repository / "blobs" / f"{number:064x}").write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(f"../../blobs/{number:064x}")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = tree(tmp_path / "hub")
    where = ("--json", *LOOPBACK, "--listen", "127.0.0.1:0")
    child = start("release", "seed", "--from-hf-cache", "org/tiny", *where, "--bittorrent", "encryption=required")
    seeding = child.wait_for("seeding", DEADLINE_S)
    assert seeding["name"] == commit
    assert "ws=https%3A%2F%2Fhuggingface.co%2Forg%2Ftiny%2Fresolve%2F" in seeding["magnet"]
    remote = run_json("release", "inspect", seeding["magnet"], *LOOPBACK)
    assert remote["infohash"] == seeding["infohash"]
    stop(child, signal.SIGTERM)
    assert tree(tmp_path / "hub") == before
    assert (tmp_path / "cache" / "mistral-swarm" / f"{commit}.torrent").is_file()

    for wrong, said in (("org/other", "hf download org/other"), ("org", "ORG/NAME"), ("../x/y", "ORG/NAME")):
        ran = run("release", "seed", "--from-hf-cache", wrong, *LOOPBACK)
        assert (ran.returncode, said in ran.stderr) == (2, True), ran.stderr
    assert run("release", "seed", *LOOPBACK).returncode == 2


def test_a_torrent_is_seeded_from_where_its_data_lies(start: Callable[..., Child], copy: Path, tmp_path: Path) -> None:
    torrent = tmp_path / "elsewhere.torrent"
    run_json("release", "create", str(copy), "-o", str(torrent))
    child, magnet = seed(start, torrent, "--dir", str(copy.parent))
    assert run_json("release", "inspect", magnet, *LOOPBACK)["name"] == "tiny"
    stop(child, signal.SIGINT)


def test_a_torrent_whose_data_changed_is_not_seeded(start: Callable[..., Child], copy: Path) -> None:
    torrent = run_json("release", "create", str(copy))["torrent"]
    readme = copy / "README.md"
    readme.write_text("x".join(readme.read_text().rsplit("e", 1)))
    ran = run("release", "seed", torrent, *LOOPBACK)
    assert ran.returncode == 8
    assert "README.md" in ran.stderr
    assert "swarm release create" in ran.stderr


def test_a_seeder_for_people_prints_the_magnet_and_nothing_else_on_stdout(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "swarm", "release", "seed", str(folder), *LOOPBACK, "--external", "127.0.0.1:5"]
    stderr = tmp_path / "stderr"
    with stderr.open("wb") as log, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process:
        try:
            assert process.stdout is not None
            magnet = process.stdout.readline()
            deadline_s = time.monotonic() + DEADLINE_S
            while "given" not in stderr.read_text() and time.monotonic() < deadline_s:
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            rest, status = process.stdout.read(), process.wait(DEADLINE_S)
        finally:
            process.kill()
    assert (status, rest) == (0, "")
    assert magnet.startswith("magnet:?")
    assert magnet.endswith("x.pe=127.0.0.1:5\n")
    assert "stopped after giving 0 B" in stderr.read_text()


def test_a_taken_port_is_told(start: Callable[..., Child], copy: Path) -> None:
    child, magnet = seed(start, copy)
    ran = run("release", "seed", str(copy), *LOOPBACK, "--listen", magnet.partition("x.pe=")[2])
    assert ran.returncode == 1
    assert "error: 127.0.0.1:" in ran.stderr
    stop(child, signal.SIGINT)
