"""The images hold what they need: what is copied suffices to build the wheel, and nobody runs as root."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def instructions() -> list[tuple[str, str]]:
    """(instruction, its arguments), continued lines joined. Source: Dockerfile reference."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = (line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip())
    return [(line.split(None, 1)[0].upper(), line.split(None, 1)[1]) for line in lines]


def stages() -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """name -> (what it is built from, its instructions)."""
    found: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    name = ""
    for instruction, arguments in instructions():
        if instruction == "FROM":
            base, _, name = arguments.partition(" AS ")
            found[name] = (base, [])
        elif name:
            found[name][1].append((instruction, arguments))
    return found


def inherited(name: str) -> list[tuple[str, str]]:
    """A stage's instructions after those of all stages below it."""
    base, own = stages()[name]
    return [*(inherited(base) if base in stages() else []), *own]


def copied() -> list[str]:
    """What is copied from the context."""
    paths = (arguments.split()[:-1] for kind, arguments in inherited("build-node") if kind == "COPY")
    return [path for group in paths for path in group]


def ignored() -> list[str]:
    return [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]


def test_the_context_is_what_is_copied() -> None:
    """An allow-list: no secret, cache or checkpoint that lies in the checkout gets into a build by accident."""
    assert ignored()[0] == "*"
    assert sorted(line[1:] for line in ignored() if line.startswith("!")) == sorted(copied())


def test_what_is_copied_makes_the_wheel(tmp_path: Path) -> None:
    for path in copied():
        if (ROOT / path).is_dir():
            shutil.copytree(ROOT / path, tmp_path / path, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / path, tmp_path / path)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "out"]
    subprocess.run(build, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    (wheel,) = (tmp_path / "out").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert {"swarm/cli/main.py", "node/cli.py"} <= set(archive.namelist())


def test_the_extras_that_are_installed_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    installed = {
        name: set(re.search(r'install "\.\[([a-z,]+)\]"', dict(stages()[name][1])["RUN"])[1].split(","))  # type: ignore[index]
        for name in ("build-client", "build-node")
    }
    assert installed == {"build-client": {"gateway"}, "build-node": {"gateway", "node"}}
    assert set.union(*installed.values()) <= set(extras)


def test_the_python_is_one_that_the_package_takes() -> None:
    version = next(arguments.partition("=")[2] for kind, arguments in instructions() if kind == "ARG")
    lowest, highest = re.findall(
        r"\d+\.(\d+)", tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    )
    assert int(lowest) <= int(version.partition(".")[2]) < int(highest)


def test_both_images_run_swarm_as_an_ordinary_user() -> None:
    for name in ("client", "node"):
        kinds = dict(inherited(name))
        assert kinds["ENTRYPOINT"] == '["swarm"]'
        assert kinds["USER"] == "10001:10001"
        assert kinds["COPY"] == f"--from=build-{name} /opt/swarm /opt/swarm"
        assert kinds["STOPSIGNAL"] == "SIGTERM", "which drains"
    assert "torch" not in " ".join(arguments for _, arguments in inherited("client"))
