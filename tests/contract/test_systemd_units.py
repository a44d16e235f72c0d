"""The user units are what systemd takes, and what they start are verbs and flags that exist."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

SYSTEMD = Path(__file__).parents[2] / "packaging" / "systemd"
UNITS = sorted((SYSTEMD / "user").glob("*.service"))
EXAMPLES = {
    "swarm-gateway.service": "gateway.env",
    "swarm-node@.service": "node-mixtral.env",
    "swarm-seed@.service": "seed-mixtral.env",
}


def read_unit(path: Path) -> configparser.ConfigParser:
    unit = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(path.read_text())
    return unit


def read_environment(path: Path) -> dict[str, str]:
    """An EnvironmentFile without quotes, which is all that the examples need. Source: systemd.exec(5)."""
    lines = (line for line in path.read_text().splitlines() if line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)


def started(unit: configparser.ConfigParser, environment: dict[str, str]) -> list[str]:
    """The words of ExecStart: `${NAME}` is one, `$NAME` is split at spaces. Source: systemd.service(5)."""
    words: list[str] = []
    for word in shlex.split(unit["Service"]["ExecStart"]):
        if split := re.fullmatch(r"\$([A-Z_]+)", word):
            words += environment[split[1]].split()
        else:
            words.append(re.sub(r"\$\{([A-Z_]+)\}", lambda name: environment[name[1]], word))
    return words


def test_every_unit_has_an_example() -> None:
    assert {path.name for path in UNITS} == set(EXAMPLES)
    assert {path.name for path in (SYSTEMD / "examples").iterdir()} == set(EXAMPLES.values())


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_what_a_unit_starts_exists(path: Path, tmp_path: Path, check_command: Callable[[list[str]], None]) -> None:
    example = read_environment(SYSTEMD / "examples" / EXAMPLES[path.name])
    if "RELEASE" in example:
        example["RELEASE"] = str(tmp_path)  # click looks whether it is there
    program, *arguments = started(read_unit(path), example)
    assert program == "%h/.local/bin/swarm"
    check_command(arguments)


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_a_unit_reads_the_file_that_its_example_is_named_after(path: Path) -> None:
    file = read_unit(path)["Service"]["EnvironmentFile"].replace("%i", "mixtral")
    assert file == f"%E/mistral-swarm/{EXAMPLES[path.name]}"


def test_a_wrong_flag_would_be_found(check_command: Callable[[list[str]], None]) -> None:
    with pytest.raises(click.UsageError, match="--lairs"):
        check_command(["node", "start", "magnet:?", "--lairs", "0:8"])


Verify = Callable[[str], str]


@pytest.fixture
def verify(tmp_path: Path) -> Verify:
    """verify(name) -> what systemd says against the copy of that unit in this folder; "" when it takes it."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed here")
    program = tmp_path / ".local" / "bin" / "swarm"
    program.parent.mkdir(parents=True)
    program.symlink_to(sys.executable)
    for path in UNITS:
        shutil.copy(path, tmp_path)
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}

    def verify(name: str) -> str:
        command = ["systemd-analyze", "--user", "--man=no", "--generators=no", "verify", str(tmp_path / name)]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)
        return ran.stdout + ran.stderr or (f"status {ran.returncode}" if ran.returncode else "")

    return verify


@pytest.mark.parametrize("name", EXAMPLES)
def test_systemd_takes_the_unit(name: str, verify: Verify) -> None:
    assert verify(name.replace("@", "@mixtral")) == ""


def test_systemd_would_refuse_a_broken_one(tmp_path: Path, verify: Verify) -> None:
    unit = tmp_path / "swarm-gateway.service"
    unit.write_text(unit.read_text().replace("Restart=on-failure", "Restart=perhaps"))
    assert "restart specifier" in verify(unit.name)
