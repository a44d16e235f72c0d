"""A peer-to-peer swarm that distributes open-weight Mistral models by torrent and runs them together.

`swarm.connect(magnet)` is where a program begins. Names are loaded when first used, so that `swarm --help` stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from swarm.client import AsyncClient, Client, Generation, TokenEvent, connect, connect_async
    from swarm.errors import SwarmError
    from swarm.sampling import SamplingParams

__all__ = [
    "AsyncClient",
    "Client",
    "Generation",
    "SamplingParams",
    "SwarmError",
    "TokenEvent",
    "__version__",
    "connect",
    "connect_async",
]

_HOMES = {"SamplingParams": "swarm.sampling", "SwarmError": "swarm.errors"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'swarm' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES.get(name, "swarm.client")), name)
