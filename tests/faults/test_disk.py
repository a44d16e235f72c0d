"""A node whose disk fills up: told with the path, and mended by making room."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

MIB = 1 << 20


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Path]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_told_and_the_same_command_goes_on_once_there_is_room(
    cli: Any, seeded: str, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", 28 * MIB) as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(16 * MIB))
        options = ("--layers", "0:6", "--dtype", "fp32", "--timeout", 30)
        # Slow enough for its progress to be told, so that the test knows what it had.
        first = cli.node(seeded, "disk", *options, "--download-rate", 6 * MIB)
        assert first.status() == 6
        told = first.events[-1]
        assert (told["event"], told["error"], told["exit_code"]) == ("error", "DiskFull", 6)
        for message in (told["message"], first.stderr().splitlines()[-1]):
            assert str(disk) in message
            assert "No space left" in message
            assert "ree space" in message
        had_bytes = [event["have_bytes"] for event in first.events if event["event"] == "progress"][-1]
        assert had_bytes >= 4 * MIB

        assert cli.node(seeded, "disk", *options).status() == 6, "still no room"
        ballast.unlink()
        second = cli.node(seeded, "disk", *options)
        ready = second.wait_for("ready", 60.0)
        assert ready["fetched_bytes"] <= ready["planned_bytes"] - had_bytes
        second.signal(15)
        assert second.status() == 0
