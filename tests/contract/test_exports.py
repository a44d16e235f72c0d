"""The public names of `swarm`: what programs are written against. A change here belongs in the changelog."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import re
import subprocess
import sys

import pytest

import swarm

HOMES = {
    "AsyncClient": "swarm.client",
    "Client": "swarm.client",
    "Generation": "swarm.client",
    "SamplingParams": "swarm.sampling",
    "SwarmError": "swarm.errors",
    "TokenEvent": "swarm.client",
    "connect": "swarm.client",
    "connect_async": "swarm.client",
}
PUBLIC_NAMES = sorted([*HOMES, "__version__"])
HEAVY = ("torch", "node", "numpy", "grpc", "libtorrent", "mistral_common", "transformers", "click", "rich")


def test_the_public_names_are_these() -> None:
    assert sorted(swarm.__all__) == PUBLIC_NAMES


@pytest.mark.parametrize(("name", "room"), HOMES.items())
def test_each_name_is_the_one_of_its_room_and_is_documented(name: str, room: str) -> None:
    value = getattr(swarm, name)
    assert value is getattr(importlib.import_module(room), name)
    assert len(inspect.getdoc(value) or "") >= 20


def test_any_other_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'conect'"):
        swarm.conect  # type: ignore[attr-defined]  # noqa: B018


def test_the_version_is_the_distribution_s() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+([abc]\d+|rc\d+|\.dev\d+)?", swarm.__version__)
    assert importlib.metadata.version("mistral-swarm") == swarm.__version__


@pytest.mark.parametrize(
    "statement", ["import swarm", "from swarm import SwarmError", "import swarm; swarm.__version__"]
)
def test_what_is_light_stays_light(statement: str) -> None:
    """`swarm --help` pays for the package's import on every run."""
    code = f"import sys; {statement}; print(*(m for m in {HEAVY!r} if m in sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == []


def test_the_whole_client_loads_without_torch() -> None:
    code = (
        "import sys\n"
        "sys.modules['torch'] = sys.modules['node'] = sys.modules['safetensors'] = None\n"  # an import of them fails
        "import swarm\n"
        "print(*(getattr(swarm, name) is not None for name in swarm.__all__))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.stdout.split() == ["True"] * len(PUBLIC_NAMES), ended.stderr
