"""soak: a swarm whose nodes join, are told to stop and are killed at random, under eight streams, for minutes.

The nodes are processes as volunteers start them. The first third of the embedded release has one that stays, on every
route; the others have up to three that come and go. Every answer is compared with the one that the same prompt and seed
had before anything happened. What must not grow (memory, threads, file descriptors) is looked at after a quarter of the
time and at the end, in the client and in the node that stays. A round is a minute.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import statistics
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.figures import Figure
from benchmarks.models import prompts_of
from benchmarks.processes import Processes, RunningNode
from swarm.cli.local_swarm import split_layers
from swarm.client import AsyncClient, connect_async
from swarm.embedded import NAME, release_folder
from swarm.errors import SwarmError
from swarm.release import read_folder_layout
from swarm.sampling import SamplingParams
from swarm.terms import NodeId

BENCH = "soak"
N_STREAMS = 8
N_PROMPTS = 24
ANSWER_TOKENS = 150
DRAIN_TIMEOUT_S = 2.0
MOST_GUESTS = 3
"""Nodes of a span that come and go. One of them is always left."""
PAUSE_S = (0.5, 2.0)
SEED = 20
DEFAULT_ROUNDS = 10


@dataclass(frozen=True, slots=True)
class Held:
    """What a process has of the system."""

    rss_bytes: int
    n_threads: int
    n_files: int

    @classmethod
    def by(cls, pid: int) -> Held:
        process = psutil.Process(pid)
        return cls(process.memory_info().rss, process.num_threads(), process.num_fds())


def run(work_dir: Path, n_rounds: int) -> list[Figure]:
    folder = Path(shutil.copytree(release_folder(), work_dir / NAME))
    args = read_folder_layout(folder).args
    spans = [str(span) for span in split_layers(args.n_layers, 3)]
    with Processes(work_dir) as processes:
        _, magnet = processes.seed(folder)
        nodes = processes.nodes(magnet, [*spans, *spans[1:]], "bf16", 1, *_drains())
        return asyncio.run(Soak(work_dir, processes, magnet, nodes, args.vocab_size, 60.0 * n_rounds).figures())


class Soak:
    """One run. nodes: the one that stays, and the first guests."""

    def __init__(
        self, work_dir: Path, processes: Processes, magnet: str, nodes: list[RunningNode], vocab_size: int,
        length_s: float,
    ) -> None:  # fmt: skip
        self._work_dir = work_dir
        self._processes = processes
        self._magnet = magnet
        self._stays = nodes[0]
        self._guests: dict[str, list[RunningNode]] = {}
        for node in nodes[1:]:
            self._guests.setdefault(str(node.ready["spans"][0]), []).append(node)
        self._joining: dict[asyncio.Task[None], str] = {}
        self._prompts = prompts_of(N_PROMPTS, 40, vocab_size)
        self._expected: list[tuple[int, ...]] = []
        self._random = random.Random(SEED)
        self._length_s = length_s
        self._happened: Counter[str] = Counter()
        self._wrong: list[str] = []
        self._n_exact = self._n_tokens = self._n_replays = 0
        self._fresh_s: list[float] = []

    async def figures(self) -> list[Figure]:
        peers = [str(self._stays.address)]
        data_dir = self._work_dir / "client"
        async with connect_async(
            self._magnet, network="loopback", data_dir=data_dir, peers=peers, timeout_s=60.0
        ) as client:
            for nth in range(N_PROMPTS):
                self._expected.append((await client.generate(self._prompts[nth], params_of(nth))).ids)
            usual_s = [await self._first_token_s(client) for _ in range(5)]
            started_s = time.monotonic()
            early, late = await self._stir(client, started_s)
            took_s = time.monotonic() - started_s
        n_all = self._n_exact + len(self._wrong)
        told = ", ".join(f"{n} {what}" for what, n in sorted(self._happened.items()))
        found = [
            Figure(BENCH, f"exact answers ({told}; {self._n_replays} replays)", self._n_exact, "answers", "all",
                   n_all, self._n_exact / max(1, n_all)),
            Figure(BENCH, f"tokens of {N_STREAMS} streams meanwhile", self._n_tokens / took_s, "tok/s"),
            *_grown(early, late),
        ]  # fmt: skip
        if self._fresh_s:
            fresh_s, usual = statistics.median(self._fresh_s), statistics.median(usual_s)
            case = "first token of who comes as a node is told to stop"
            found.append(Figure(BENCH, case, fresh_s, "s", "before, alone", usual, usual / fresh_s))
            found.append(Figure(BENCH, f"{case}, slowest of {len(self._fresh_s)}", max(self._fresh_s), "s"))
        if self._wrong:
            first = self._wrong[0]
            raise SwarmError(f"{len(self._wrong)} of {n_all} answers were lost or changed ({told}); the first: {first}")
        return found

    async def _stir(self, client: AsyncClient, started_s: float) -> tuple[dict[str, Held], dict[str, Held]]:
        """Run streams and disturb them -> what was held after a quarter of the time, and at the end."""
        end_s = started_s + self._length_s
        streams = [asyncio.create_task(self._stream(client, nth, end_s)) for nth in range(N_STREAMS)]
        early: dict[str, Held] = {}
        while time.monotonic() < end_s:
            if not early and time.monotonic() >= started_s + self._length_s / 4:
                early = self._held()
            await self._disturb(client)
            await asyncio.sleep(self._random.uniform(*PAUSE_S))
        late = self._held()
        await asyncio.gather(*streams, *self._joining)
        return early, late

    async def _stream(self, client: AsyncClient, nth: int, end_s: float) -> None:
        """One answer after the other, each held against what it was before."""
        while time.monotonic() < end_s:
            prompt = nth % N_PROMPTS
            try:
                got = await client.generate(self._prompts[prompt], params_of(prompt))
            except SwarmError as error:
                self._wrong.append(f"prompt {prompt} ended with {type(error).__name__}: {error.message}")
                continue
            self._n_tokens += len(got.ids)
            self._n_replays += got.timings.n_replays
            if got.ids == self._expected[prompt]:
                self._n_exact += 1
            else:
                same = next(
                    i for i, pair in enumerate(zip(got.ids, self._expected[prompt], strict=False)) if len(set(pair)) > 1
                )
                replays = got.timings.n_replays
                self._wrong.append(f"prompt {prompt} differs from token {same} on, after {replays} replays")
            nth += N_STREAMS

    async def _disturb(self, client: AsyncClient) -> None:
        """One of the three things that happen to a swarm."""
        span = self._random.choice(sorted(self._guests))
        guests = self._guests[span]
        if len(guests) + list(self._joining.values()).count(span) < MOST_GUESTS:
            joining = asyncio.create_task(self._join(span))
            self._joining[joining] = span
            joining.add_done_callback(self._joining.pop)
        elif len(guests) > 1:
            await self._lose(guests.pop(self._random.randrange(len(guests))), client)

    async def _join(self, span: str) -> None:
        self._guests[span] += await asyncio.to_thread(
            self._processes.nodes, self._magnet, [span], "bf16", 1, *_drains()
        )
        self._happened["joined"] += 1

    async def _lose(self, node: RunningNode, client: AsyncClient) -> None:
        if self._random.random() < 0.5:
            node.child.kill()
            self._happened["killed"] += 1
        else:
            os.kill(node.child.pid, signal.SIGTERM)
            self._happened["drained"] += 1
            self._fresh_s.append(await self._first_token_s(client, node.node_id))
            await asyncio.to_thread(node.child.wait_for_end, 30.0)
        self._processes.stop(node.child)

    async def _first_token_s(self, client: AsyncClient, leaving: NodeId | None = None) -> float:
        """Of a new session. It must not end up on the node that leaves."""
        started_s = time.monotonic()
        async with client.stream(self._prompts[0], params_of(0)) as stream:
            await anext(stream)
            took_s = time.monotonic() - started_s
            route = stream.result.route
        assert route is not None
        if leaving in [hop.node_id for hop in route.hops]:
            self._wrong.append("a new session went to a node that leaves")
        return took_s

    def _held(self) -> dict[str, Held]:
        pids = {"the client": os.getpid(), "the node that stays": self._stays.child.pid}
        return {name: Held.by(pid) for name, pid in pids.items()}


def params_of(nth: int) -> SamplingParams:
    """Every other one greedy."""
    if nth % 2:
        return SamplingParams(max_tokens=ANSWER_TOKENS, temperature=0.9, top_p=0.95, seed=nth, ignore_eos=True)
    return SamplingParams(max_tokens=ANSWER_TOKENS, temperature=0.0, ignore_eos=True)


def _drains() -> tuple[str, ...]:
    return ("--drain-timeout", str(DRAIN_TIMEOUT_S))


def _grown(early: dict[str, Held], late: dict[str, Held]) -> list[Figure]:
    peer = "after a quarter"
    figures = []
    for who, then in early.items():
        now = late[who]
        for what, a, b, unit in (
            ("memory", now.rss_bytes, then.rss_bytes, "bytes"),
            ("threads", now.n_threads, then.n_threads, "threads"),
            ("open files", now.n_files, then.n_files, "files"),
        ):
            figures.append(Figure(BENCH, f"{what} of {who}", a, unit, peer, b, b / a))
    return figures
