"""What every kind of test stands on: synthetic releases, built once per run, and one compute thread."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("SWARM_NETWORK", "loopback")

# A shared machine stalls for longer than any one example takes.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")

Release = Callable[..., Path]
"""release("tiny-mixtral", format="hf", dtype="fp32") -> the folder of that synthetic release; treat it as read-only."""


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    made: dict[tuple[str, str, str], Path] = {}

    def make(preset: str, format: str = "hf", dtype: str = "fp32") -> Path:
        from node.weights import write_preset

        key = (preset, format, dtype)
        if key not in made:
            folder = tmp_path_factory.mktemp("release") / f"{preset}-{format}-{dtype}"
            write_preset(preset, folder, format=format, dtype=dtype)
            made[key] = folder
        return made[key]

    return make
