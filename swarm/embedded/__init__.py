"""The release that ships inside the package: Pip, a small trained Mixtral that speaks, with its tokenizer and card.

Promises a folder of a real release in HF's layout, read-only, that needs no network to be had. Does NOT know how it was
trained (scripts/embedded), who serves it, or what it says.
"""

from __future__ import annotations

import importlib.resources
from pathlib import Path

from swarm.errors import SwarmError

__all__ = ["NAME", "release_folder"]

NAME = "pip-12m"
"""The folder's name, which the release made of it bears too."""


def release_folder() -> Path:
    """Where the embedded release lies. Raises: SwarmError if the package was installed without it."""
    root = importlib.resources.files(__name__)
    if not isinstance(root, Path) or not (root / NAME / "config.json").is_file():
        raise SwarmError(f"the embedded release is missing at {root / NAME}; install mistral-swarm again")
    return root / NAME
