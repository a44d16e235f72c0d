"""The wheel that a user installs holds both packages, their types and the licence, and no test or script."""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path

from hatchling.builders.wheel import WheelBuilder

from swarm.embedded import release_folder

ROOT = Path(__file__).parents[2]


def test_what_the_dockerfile_copies_makes_the_same_wheel(tmp_path: Path) -> None:
    """Its images install from these files alone."""
    copied = re.findall(r"^COPY (?!--from)(.+) (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    source = tmp_path / "source"
    for names, target in copied:
        for name in names.split():
            to = source / target / (name if target == "./" else "")
            to.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, to)
    wheels = [
        next(WheelBuilder(str(root)).build(directory=str(tmp_path / at), versions=["standard"]))
        for at, root in (("theirs", source), ("ours", ROOT))
    ]
    theirs, ours = (set(zipfile.ZipFile(wheel).namelist()) for wheel in wheels)
    assert theirs == ours


def test_the_wheel_holds_what_it_should(tmp_path: Path) -> None:
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry_points = next(archive.read(n).decode() for n in names if n.endswith("entry_points.txt"))
        metadata = next(archive.read(n).decode() for n in names if n.endswith(".dist-info/METADATA"))
    packages = [ROOT / top for top in ("swarm", "node")]
    sources = {str(p.relative_to(ROOT)) for top in packages for kind in ("*.py", "*.[ch]") for p in top.rglob(kind)}
    assert sources <= names
    assert {"node/model/ops/native/products.c", "node/model/ops/native/tiles.h"} <= names  # built where they run
    assert {"swarm/py.typed", "node/py.typed"} <= names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"swarm", "node"}
    assert any(name.endswith("licenses/LICENSE") for name in names)
    for data in (release_folder(), ROOT / "swarm/gateway/static"):  # what `swarm chat demo` and the pages are made of
        files = {str(path.relative_to(ROOT)) for path in data.rglob("*") if path.is_file()}
        assert files
        assert files <= names
    assert "swarm = swarm.cli.main:main" in entry_points
    assert "node = node.cli:node" in entry_points
    assert "torch==2.13.0; extra == 'node'" in metadata
