"""The house stands as planned: rooms import downwards only, and what is dangerous or heavy has one home.

Reads the sources (ast), so that imports inside of functions and under TYPE_CHECKING count as well: a floor is about
what a room knows, not about when it loads it.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FLOORS = (
    # Within floor 0 the order is that of the words: each file may know those above it in this list.
    ("swarm.errors",),
    ("swarm.terms",),
    ("swarm.pages",),
    ("swarm.facts",),
    ("swarm.messages",),
    # floor 1
    (
        "swarm.release",
        "swarm.routing",
        "swarm.sampling",
        "swarm.wire",
        "swarm.identity",
        "swarm.embedded",
        "node.notes",
    ),
    # floor 2
    ("swarm.torrent", "swarm.discovery", "swarm.rpc", "swarm.tokenizer", "swarm.grammar", "node.weights", "node.model"),
    # floor 3
    ("swarm.client", "node.stage", "node.hosting", "node.placement"),
    # Its calls are computed by a thread like the stage's.
    ("node.experts",),
    # floor 4: `swarm` itself is the public face of the client, and is imported for its version
    ("node.server", "node.reach", "swarm"),
    # It keeps what the server says of the node true.
    ("node.moving",),
    # It serves what the client offers, and tells the public version.
    ("swarm.gateway",),
    # floor 5, and the composition root in its own order
    ("swarm.cli", "node.config"),
    ("node.app", "node.cli_events", "node.cli_running"),
    ("node.cli", "swarm.__main__"),
    ("node",),
)
"""Lowest first. A room may import any room of a row above it in this list, and none of its own row or below."""

SOLE_IMPORTERS = {
    "libtorrent": ("swarm.torrent",),
    "grpc": ("swarm.rpc",),
    "grpc_health": ("swarm.rpc",),
    "llguidance": ("swarm.grammar",),
    "safetensors": ("node.weights",),
    "starlette": ("swarm.gateway",),
    "uvicorn": ("swarm.gateway",),
    "httptools": (),
    "prometheus_client": ("swarm.gateway",),
    "zeroconf": ("swarm.discovery",),
    "torch": ("node",),
    "transformers": (),
    "swarm.wire.v1": ("swarm.wire", "swarm.rpc"),
    "google.protobuf": ("swarm.wire", "swarm.rpc"),
}
"""Who may import it: these rooms, or every room of a package. Generated code under swarm/wire/v1 is exempt."""

UNSAFE_MODULES = frozenset({"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"})
UNSAFE_CALLS = frozenset({"eval", "exec", "compile", "globals", "__import__"})
UNSAFE_ATTRIBUTES = frozenset({"torch.load", "builtins.eval", "builtins.exec"})
VAGUE_NAMES = frozenset({"utils", "util", "common", "helpers", "helper", "misc"})
MAX_LINES = 400


def room_of(path: Path) -> str:
    """swarm/rpc/dialer.py -> swarm.rpc, swarm/terms.py -> swarm.terms, swarm/__init__.py -> swarm."""
    parts = path.with_suffix("").parts[:2]
    return parts[0] if parts[1] == "__init__" else ".".join(parts)


def sources() -> dict[Path, str]:
    """Every hand-written module of both packages, by its path from the root."""
    found = [path for package in ("swarm", "node") for path in (ROOT / package).rglob("*.py")]
    paths = sorted(path.relative_to(ROOT) for path in found)
    return {path: (ROOT / path).read_text() for path in paths if path.parts[:3] != ("swarm", "wire", "v1")}


SOURCES = sources()
ROOMS = sorted({room_of(path) for path in SOURCES})
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def imports(path: Path, source: str) -> Iterator[str]:
    """Full dotted names of what a module imports: a.b.c for `from a.b import c`, and for import_module("a.b.c")."""
    package = path.with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join((*package[: len(package) - node.level + 1], *filter(None, [node.module])))
            module = base if node.level else node.module or ""
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "import_module":
            yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str))


def is_within(name: str, module: str) -> bool:
    return name == module or name.startswith(module + ".")


def imported_room(name: str) -> str | None:
    """swarm.rpc.dialer.Dialer -> swarm.rpc; swarm.__version__ -> swarm; None for what is not ours."""
    first, *rest = name.split(".")
    if first not in ("swarm", "node"):
        return None
    return next((f"{first}.{part}" for part in rest[:1] if f"{first}.{part}" in FLOOR_OF), first)


def upward_imports(path: Path, source: str) -> list[str]:
    room = room_of(path)
    reached = {(name, imported_room(name)) for name in imports(path, source)}
    return sorted(
        f"{path} imports {name}: {other} does not lie below {room}"
        for name, other in reached
        if other is not None and other != room and FLOOR_OF[other] >= FLOOR_OF[room]
    )


def foreign_imports(path: Path, source: str) -> list[str]:
    room = room_of(path)
    return sorted(
        f"{path} imports {name}, which only {' and '.join(homes) or 'nobody'} may"
        for name in imports(path, source)
        for module, homes in SOLE_IMPORTERS.items()
        if is_within(name, module) and not any(is_within(room, home) for home in homes)
    )


def unsafe_uses(path: Path, source: str) -> list[str]:
    """Loaders and evaluators that run what they read. A method that happens to be called eval is none."""
    found = [f"imports {name}" for name in imports(path, source) if name.split(".")[0] in UNSAFE_MODULES]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and node.id in UNSAFE_CALLS:
            found.append(f"uses {node.id} in line {node.lineno}")
        if isinstance(node, ast.Attribute) and ast.unparse(node) in UNSAFE_ATTRIBUTES:
            found.append(f"uses {ast.unparse(node)} in line {node.lineno}")
    return [f"{path} {what}" for what in found]


def test_every_room_is_on_a_floor() -> None:
    """Nothing else may grow: a new room is a change of the plan, made here and in ARCHITECTURE.md."""
    assert [room for room in ROOMS if room not in FLOOR_OF] == []


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_rooms_import_downwards_only(path: Path) -> None:
    assert upward_imports(path, SOURCES[path]) == []


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_what_has_one_home_is_imported_there_only(path: Path) -> None:
    assert foreign_imports(path, SOURCES[path]) == []


@pytest.mark.parametrize("path", [path for path in SOURCES if path.parts[0] == "swarm"], ids=str)
def test_the_client_install_knows_nothing_of_the_node(path: Path) -> None:
    heavy = [name for name in imports(path, SOURCES[path]) if name.split(".")[0] in ("node", "torch")]
    assert heavy == [], f"{path} imports {heavy}"


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_nothing_runs_what_it_reads(path: Path) -> None:
    """Not even the reader of .pth files: swarm/release has a stack machine of its own for the one pickle it knows."""
    assert unsafe_uses(path, SOURCES[path]) == []


def test_no_room_and_no_file_has_a_vague_name() -> None:
    assert [str(path) for path in SOURCES if VAGUE_NAMES & set(path.with_suffix("").parts)] == []


def test_no_file_is_two_ideas() -> None:
    long = {str(path): len(source.splitlines()) for path, source in SOURCES.items()}
    assert {path: n_lines for path, n_lines in long.items() if n_lines > MAX_LINES} == {}


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_says_what_it_is(room: str) -> None:
    """A docstring of at least a sentence or two; for a folder in its __init__.py."""
    folder = ROOT.joinpath(*room.split("."))
    source = (folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")).read_text()
    assert len(ast.get_docstring(ast.parse(source)) or "") >= 20


@pytest.mark.parametrize("room", [room for room in ROOMS if (ROOT.joinpath(*room.split(".")) / "__init__.py").exists()])
def test_every_room_lists_its_names_and_has_them(room: str) -> None:
    """Both are reached by entry points: `node` exports nothing, and `swarm.cli` may say so with an empty list."""
    if room == "node":
        pytest.skip("node/ itself exports nothing: its rooms and its entry point do")
    module = importlib.import_module(room)
    assert module.__all__ or room == "swarm.cli", f"{room} exports nothing"
    assert len(set(module.__all__)) == len(module.__all__)
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


# What follows checks the checks: each is handed a source that breaks its rule.


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("swarm/terms.py", "from swarm.facts import Hop"),
        ("swarm/release/x.py", "import swarm.routing"),
        ("swarm/release/x.py", "from swarm import routing"),
        ("swarm/release/x.py", "from ..routing import plan_route"),
        ("swarm/release/x.py", "def f():\n    from swarm.client import Client"),
        ("swarm/rpc/x.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from swarm.torrent import Magnet"),
        ("swarm/client/x.py", "from swarm import __version__"),
        ("swarm/client/x.py", "import importlib\nimportlib.import_module('swarm.cli.main')"),
        ("node/server/x.py", "from node.app import NodeApp"),
        ("node/stage/x.py", "from swarm.client import Client"),
    ],
)
def test_an_upward_import_is_found(path: str, source: str) -> None:
    assert len(upward_imports(Path(path), source)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        (
            "swarm/client/x.py",
            "from swarm.rpc.dialer import Dialer\nfrom swarm.errors import SwarmError\nimport swarm.terms",
        ),
        ("swarm/release/x.py", "from swarm.release import y\nfrom . import y\nfrom .y import z"),
        ("swarm/cli/x.py", "from swarm import __version__"),
        ("node/cli.py", "from swarm.cli.console import note\nfrom node.app import NodeApp"),
    ],
)
def test_a_downward_import_is_not(path: str, source: str) -> None:
    assert upward_imports(Path(path), source) == []


@pytest.mark.parametrize(
    ("path", "source", "n_found"),
    [
        ("swarm/cli/x.py", "import libtorrent as lt", 1),
        ("swarm/client/x.py", "import grpc.aio", 1),
        ("swarm/client/x.py", "from grpc import aio", 1),
        ("swarm/client/x.py", "from grpc_health.v1 import health_pb2", 1),
        ("node/model/x.py", "from safetensors.torch import load_file", 1),
        ("swarm/client/x.py", "from swarm.wire.v1 import stage_pb2", 1),
        ("swarm/sampling/x.py", "import torch", 1),
        ("node/model/x.py", "from transformers import AutoModel", 1),
        ("swarm/rpc/x.py", "import grpc\nfrom swarm.wire.v1 import stage_pb2", 0),
        ("node/model/x.py", "import torch.nn.functional as F", 0),
        ("swarm/release/x.py", "from swarm.release import torchlike, grpcish", 0),
    ],
)
def test_a_foreign_import_is_found(path: str, source: str, n_found: int) -> None:
    assert len(foreign_imports(Path(path), source)) == n_found


@pytest.mark.parametrize(
    ("source", "n_found"),
    [
        ("import pickle", 1),
        ("from pickle import Unpickler", 1),
        ("x = eval('1')", 1),
        ("f = exec", 1),
        ("globals()['x']", 1),
        ("import torch\ntorch.load('x')", 1),
        ("__import__('os')", 1),
        ("model.eval()\nimport pickletools\nre.compile('x')", 0),
    ],
)
def test_an_unsafe_use_is_found(source: str, n_found: int) -> None:
    assert len(unsafe_uses(Path("swarm/release/x.py"), source)) == n_found
