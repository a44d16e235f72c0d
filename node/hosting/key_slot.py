"""Several nodes of one machine on one data folder: the content is theirs together, the identity each one's own."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from swarm.errors import BadArgument

MAX_NODES_PER_FOLDER = 16


@contextlib.contextmanager
def own_key(folder: Path) -> Iterator[Path]:
    """Where this process keeps its node's key: node.key, or node-2.key and so on beside nodes that run already.

    Nodes of one release and data folder share its content; no two are the same node. Raises: BadArgument.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, MAX_NODES_PER_FOLDER + 1):
        name = "" if number == 1 else f"-{number}"
        with (folder / f"lock{name}").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield folder / f"node{name}.key"
            return
    raise BadArgument(
        f"{MAX_NODES_PER_FOLDER} nodes use {folder} already; stop one, or give this one its own --data-dir"
    )
