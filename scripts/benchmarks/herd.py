"""A swarm whose nodes are born and killed within milliseconds, and a client of it: what failover is measured on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.nursery import RELEASE
from swarm.client.generation import TokenLoop
from swarm.client.journal import Journal
from swarm.client.routes import RouteFinder
from swarm.client.values import ClientRelease
from swarm.discovery import RttBook
from swarm.errors import SwarmError
from swarm.facts import NodeFact, NodeState
from swarm.identity import NodeKey, issue
from swarm.release import read_folder_layout
from swarm.rpc import Dialer, RpcConfig
from swarm.sampling import SamplingParams
from swarm.terms import Address, NodeId, Profile, Span

SCRIPTS = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Sheep:
    """A node: a process of its own that serves span, and says no more than that."""

    node_id: NodeId
    address: Address
    pid: int
    span: Span
    died: asyncio.Event

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)


class Finder(RouteFinder):
    """The client's own, which also notes when each loss was noticed."""

    def __init__(self, herd: Any, n_layers: int, wait_s: float) -> None:
        super().__init__(herd, n_layers, wait_s)
        self.noticed_s: list[float] = []

    def avoid(self, node_ids: Sequence[NodeId], error: SwarmError) -> None:
        self.noticed_s.append(time.perf_counter())
        super().avoid(node_ids, error)


class Herd:
    """Async context manager: the nodes of one profile, all of which end with it.

    It stands in for discovery: it names who was born and not yet buried, since facts outlive nodes. noticed_s: when its
    clients noticed that a node was lost, by time.perf_counter().
    """

    def __init__(self, folder: Path, dtype: str, *, exact: bool = False, wait_s: float = 30.0) -> None:
        self.args = read_folder_layout(folder).args
        self.profile = Profile(dtype)
        self.wait_s = wait_s
        self.noticed_s: list[float] = []
        self.rtts = RttBook()
        self._command = [sys.executable, "-m", "benchmarks.nursery", str(folder), dtype, *(["exact"] if exact else [])]
        self._tls = issue(NodeKey.generate())
        self._dialer = Dialer(self._tls, RpcConfig.loopback())
        self._sheep: dict[NodeId, Sheep] = {}
        self._bearing = asyncio.Lock()

    async def __aenter__(self) -> Herd:
        env = {**os.environ, "PYTHONPATH": str(SCRIPTS), "OMP_NUM_THREADS": "1"}
        pipe = asyncio.subprocess.PIPE
        self._nursery = await asyncio.create_subprocess_exec(*self._command, stdin=pipe, stdout=pipe, env=env)
        self.profile = Profile.parse((await self._hear())["profile"])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._dialer.close()
        for sheep in self._sheep.values():
            sheep.kill()
        assert self._nursery.stdin is not None
        self._nursery.stdin.close()
        await self._nursery.wait()

    async def measure(self, nodes: Sequence[NodeFact]) -> None:
        """All of them are on this machine, equally near."""

    async def bear(self, span: Span, **wish: Any) -> Sheep:
        """One more node, which serves now. wish: see nursery.py."""
        assert self._nursery.stdin is not None
        async with self._bearing:
            self._nursery.stdin.write(json.dumps(wish).encode() + b"\n")
            said = await self._hear()
        sheep = Sheep(NodeId(said["node_id"]), Address.parse(said["address"]), said["pid"], span, asyncio.Event())
        self._watch(sheep)
        self._sheep[sheep.node_id] = sheep
        return sheep

    def loop(self, prompt: list[int], params: SamplingParams) -> TokenLoop:
        """The client's own: routes, sampling and journal included."""
        release = ClientRelease("herd", RELEASE, self.args, None)
        journal = Journal.create(RELEASE, prompt, params, None, continues=True)
        finder = Finder(self, self.args.n_layers, self.wait_s)
        finder.noticed_s = self.noticed_s
        return TokenLoop(release, self._dialer, self._tls.node_id, finder, journal)

    def __getitem__(self, node_id: NodeId) -> Sheep:
        return self._sheep[node_id]

    @property
    def sheep(self) -> tuple[Sheep, ...]:
        return tuple(self._sheep.values())

    def bury(self, sheep: Sheep) -> None:
        """Its fact is no longer in force."""
        self._sheep.pop(sheep.node_id, None)

    # -- as discovery --------------------------------------------------------------------------------------------

    def nodes(self) -> tuple[NodeFact, ...]:
        return tuple(map(self._fact, self._sheep.values()))

    async def refresh(self) -> None:
        """Whoever is born is known at once."""

    def describe_attempts(self) -> str:
        return "the herd itself"

    def _fact(self, sheep: Sheep) -> NodeFact:
        return NodeFact(
            node_id=sheep.node_id,
            release=RELEASE,
            address=sheep.address,
            seq=1,
            issued_at_s=time.time(),
            ttl_s=60.0,
            state=NodeState.SERVING,
            spans=(sheep.span,),
            profile=self.profile,
            n_layers=self.args.n_layers,
            free_sessions=8,
        )

    # -- processes -----------------------------------------------------------------------------------------------

    async def _hear(self) -> dict[str, Any]:
        assert self._nursery.stdout is not None
        line = await self._nursery.stdout.readline()
        if not line:
            raise RuntimeError("the nursery ended; its own words are on stderr")
        said: dict[str, Any] = json.loads(line)
        return said

    def _watch(self, sheep: Sheep) -> None:
        """Set its event when its process is gone, whatever ended it."""
        loop, descriptor = asyncio.get_running_loop(), os.pidfd_open(sheep.pid)

        def gone() -> None:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            sheep.died.set()

        loop.add_reader(descriptor, gone)
