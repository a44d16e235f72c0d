"""Seeders and nodes as a volunteer would start them: processes of their own, on loopback, ended by their pids."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from swarm.cli.processes import Child, stop_all
from swarm.terms import Address, NodeId

SEED_TIMEOUT_S = 60.0
READY_TIMEOUT_S = 180.0


@dataclass(frozen=True, slots=True)
class RunningNode:
    """A node that serves. ready: the fields of its event."""

    child: Child
    node_id: NodeId
    address: Address
    ready: dict[str, Any]


class Processes:
    """A context manager: every process started through it has ended when it is left."""

    def __init__(self, work_dir: Path) -> None:
        self._work_dir = work_dir
        self._children: list[Child] = []

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stop_all(self._children)

    def seed(self, folder: Path, *options: str) -> tuple[Child, str]:
        """Publish folder -> (its seeder, the magnet link)."""
        where = ("--network", "loopback", "--listen", "127.0.0.1:0")
        child = self._start("seed", "release", "seed", str(folder), "--json", *where, *options)
        return child, str(child.wait_for("seeding", SEED_TIMEOUT_S)["magnet"])

    def nodes(self, magnet: str, spans: list[str], dtype: str, threads: int, *options: str) -> list[RunningNode]:
        """One node per span, started together; returns when all of them serve."""
        children = [self.join(magnet, span, dtype, "--threads", str(threads), *options) for span in spans]
        running = []
        for child in children:
            ready = child.wait_for("ready", READY_TIMEOUT_S)
            started = child.wait_for("started", READY_TIMEOUT_S)
            running.append(RunningNode(child, started["node_id"], Address.parse(ready["address"]), ready))
        return running

    def join(self, magnet: str, span: str, dtype: str, *options: str) -> Child:
        """A node that starts now; without a span it chooses its layers itself."""
        name = f"node-{len(self._children)}"
        where = ("--network", "loopback", "--listen", "127.0.0.1:0", "--json", "--data-dir", str(self._work_dir / name))
        what = (*(("--layers", span) if span else ()), "--dtype", dtype, "--device", "cpu")
        return self._start(name, "node", "start", magnet, *where, *what, *options)

    def stop(self, *children: Child) -> None:
        stop_all(children)
        for child in children:
            self._children.remove(child)

    def _start(self, name: str, *arguments: str) -> Child:
        child = Child(name, arguments, self._work_dir / f"{name}.log")
        self._children.append(child)
        return child


@contextlib.contextmanager
def serving(
    processes: Processes, magnet: str, spans: list[str], dtype: str, threads: int = 1
) -> Iterator[list[RunningNode]]:
    """Nodes for the length of a `with`."""
    nodes = processes.nodes(magnet, spans, dtype, threads)
    try:
        yield nodes
    finally:
        processes.stop(*(node.child for node in nodes))
