"""A whole swarm of child processes on this machine, by the commands that a volunteer would type.

One seeder, and nodes that know nothing but the magnet link. Everything lies in one folder, talks over loopback only,
and has ended when the context is left.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from swarm.cli.console import note
from swarm.cli.errors import missing_extra
from swarm.cli.options import EMBEDDED, Reach
from swarm.cli.processes import Child, stop_all
from swarm.terms import Address, Span

SEED_TIMEOUT_S = 60.0
READY_TIMEOUT_S = 180.0
"""Generous: a slow machine should see a slow demo, not a failed one. A process that dies is noticed at once."""

N_NODES = 3


@dataclass(slots=True)
class LocalNode:
    """One node process and what it reported when it was ready."""

    child: Child
    span: Span
    ready: dict[str, Any] = field(default_factory=dict)

    @property
    def node_id(self) -> str:
        return next((str(event["node_id"]) for event in self.child.events if "node_id" in event), "")

    @property
    def address(self) -> Address:
        return Address.parse(str(self.ready["address"]))

    @property
    def needed_bytes(self) -> int:
        return int(self.ready.get("needed_bytes", 0))

    @property
    def fetched_bytes(self) -> int:
        return int(self.ready.get("fetched_bytes", 0))


class LocalSwarm:
    """A context manager. Every child has ended when it is left, in whatever way."""

    def __init__(self, folder: Path) -> None:
        self.magnet = ""
        self.total_bytes = 0
        self.nodes: list[LocalNode] = []
        self._folder = folder
        self._children: list[Child] = []

    def __enter__(self) -> LocalSwarm:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in stop_all(self._children):
            note(f"warning: {child.name} (pid {child.pid}) did not stop when asked, and was killed; log: {child.log}")

    @property
    def n_processes(self) -> int:
        return len(self._children)

    @property
    def client_data_dir(self) -> Path:
        return self._folder / "client"

    def seed(self, release: Path) -> Child:
        """Publish and seed a release's folder, which is only read; sets magnet and total_bytes."""
        torrent = self._folder / f"{release.name}.torrent"
        creator = self._start("create", "release", "create", str(release), "--output", str(torrent), "--json")
        creator.wait_for_end(SEED_TIMEOUT_S)
        self._children.remove(creator)
        where = ("--network", "loopback", "--listen", "127.0.0.1:0", "--dir", str(release.parent))
        seeder = self._start("seed", "release", "seed", str(torrent), "--json", *where)
        seeding = seeder.wait_for("seeding", SEED_TIMEOUT_S)
        self.magnet, self.total_bytes = str(seeding["magnet"]), int(seeding["total_bytes"])
        return seeder

    def start_nodes(self, spans: list[Span], on_ready: Callable[[LocalNode], None]) -> list[LocalNode]:
        """Nodes that serve these spans in fp32, started together; returns when all of them serve."""
        threads = str(max(1, (os.cpu_count() or 1) // len(spans)))
        started = []
        for number, span in enumerate(spans, start=len(self.nodes) + 1):
            data_dir = self._folder / f"node-{number}"
            where = ("--network", "loopback", "--listen", "127.0.0.1:0", "--data-dir", str(data_dir))
            what = ("--layers", str(span), "--dtype", "fp32", "--threads", threads)
            child = self._start(f"node {number}", "node", "start", self.magnet, "--json", *where, *what)
            started.append(LocalNode(child, span))
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        for node in started:
            node.ready = node.child.wait_for("ready", deadline_s - time.monotonic())
            on_ready(node)
        self.nodes += started
        return started

    def kill(self, node: LocalNode) -> None:
        """End a node as a power cut would: SIGKILL, no farewell."""
        node.child.kill()
        self._children.remove(node.child)

    def _start(self, name: str, *arguments: str) -> Child:
        child = Child(name, arguments, self._folder / f"{name.replace(' ', '-')}.log")
        self._children.append(child)
        return child


@contextlib.contextmanager
def release_or_embedded(magnet: str, reach: Reach) -> Iterator[tuple[str, Reach]]:
    """The magnet and the reach as given; for `demo`, those of a local swarm of the embedded release, while it lasts."""
    if magnet != EMBEDDED:
        yield magnet, reach
        return
    require_torch()
    from swarm.embedded import release_folder
    from swarm.release import read_folder_layout

    release = release_folder()
    with temporary_folder() as folder, interrupted_by_sigterm(), LocalSwarm(folder) as swarm:
        note(f"starting {N_NODES} nodes on this machine for the embedded release …")
        swarm.seed(release)
        spans = split_layers(read_folder_layout(release).args.n_layers, N_NODES)
        swarm.start_nodes(spans, lambda node: note(f"{node.child.name} serves layers {node.span}"))
        yield swarm.magnet, Reach("loopback", peers=tuple(node.address for node in swarm.nodes))


def require_torch() -> None:
    """Raises: SwarmError saying what to install."""
    if importlib.util.find_spec("torch") is None:
        raise missing_extra("torch")


def split_layers(n_layers: int, n_nodes: int) -> list[Span]:
    """Consecutive spans of nearly equal length, at most one per layer."""
    n_spans = min(n_layers, n_nodes)
    bounds = [n_layers * i // n_spans for i in range(n_spans + 1)]
    return [Span(a, b) for a, b in itertools.pairwise(bounds)]


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="swarm-demo-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextlib.contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the swarm as Ctrl-C does, so that no child outlives it."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
