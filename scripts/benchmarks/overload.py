"""overload: one node that is asked for four and ten times what it can do at once.

Its clients are processes of their own (crowd.py): one that asks for many at once and tries again when it is refused,
and a light one that asks for one short answer after another. Capacity is the node's --max-sessions; prompts and answers
are of different lengths, and together take more cache than there is.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

from benchmarks.figures import Figure
from benchmarks.models import MIXTRAL_1B5, write_model
from benchmarks.processes import Processes, RunningNode
from swarm.cli.processes import Child, stop_all
from swarm.client.network import NetworkConfig
from swarm.errors import StageFull
from swarm.facts import Hop
from swarm.identity import NodeKey, issue
from swarm.messages import Open, Opened
from swarm.rpc import Dialer
from swarm.terms import Infohash, Profile, SessionId, Span
from swarm.torrent import Magnet

BENCH = "overload"
ARGS = dataclasses.replace(
    MIXTRAL_1B5, dim=512, n_layers=8, n_heads=8, n_kv_heads=4, head_dim=64, hidden_dim=1536, max_positions=4096,
    windows=(None,) * 8,
)  # fmt: skip
CAPACITY = 16
"""Sessions that the node takes; it is at its fastest with about so many."""
LOADS = (8, 16)
PAGE_BYTES = ARGS.n_layers * 2 * ARGS.n_kv_heads * ARGS.head_dim * 256 * 2
BUDGET_BYTES = 24 * PAGE_BYTES
"""A page and a half for each session, of answers that need one to three."""

SETTLE_S, MEASURE_S = 3.0, 10.0
N_REFUSALS = 40
N_LIGHT = 8
DEFAULT_ROUNDS = 1
START_TIMEOUT_S = 60.0


def run(work_dir: Path, n_rounds: int) -> list[Figure]:
    torch.set_num_threads(1)
    folder = work_dir / "model"
    write_model(ARGS, folder)
    figures: list[Figure] = []
    with Processes(work_dir) as processes:
        _, magnet = processes.seed(folder)
        options = ("--max-sessions", str(CAPACITY), "--cache-budget", str(BUDGET_BYTES))
        (node,) = processes.nodes(magnet, [f"0:{ARGS.n_layers}"], "bf16", 1, *options)
        node_dir = next((work_dir).glob("node-*/node/*"))
        for _ in range(n_rounds):
            figures += Overload(work_dir, magnet, node, node_dir).measure()
    return figures


class Overload:
    """One round: what the node does at its best, at four times that, and beside a flood."""

    def __init__(self, work_dir: Path, magnet: str, node: RunningNode, node_dir: Path) -> None:
        self._work_dir = work_dir
        self._magnet = magnet
        self._node = node
        self._node_dir = node_dir
        self._process = psutil.Process(node.child.pid)

    def measure(self) -> list[Figure]:
        seen = [self._goodput(n) for n in LOADS]
        at_peak_bytes = self._process.memory_info().rss
        over = [self._goodput(4 * CAPACITY) for _ in range(2)]
        again = [self._goodput(n) for n in reversed(LOADS)]  # whatever else the machine does, before and after
        peak = max((a[0] + b[0]) / 2 for a, b in zip(seen, reversed(again), strict=True))
        goodput = statistics.mean(one[0] for one in over)
        cache_bytes, rss_bytes = max(one[1] for one in over), max(one[2] for one in over)
        alone = self._light()
        with self._crowd(10 * CAPACITY):
            beside = self._light()
            refusals = asyncio.run(self._refusals())
        alone += self._light()
        ratio = statistics.median(alone) / statistics.median(beside)
        return [
            Figure(BENCH, f"tokens of {4 * CAPACITY} streams", goodput, "tok/s", "its best", peak, goodput / peak),
            Figure(
                BENCH, "KV cache then", cache_bytes, "bytes", "its budget", BUDGET_BYTES, BUDGET_BYTES / cache_bytes
            ),
            Figure(
                BENCH, "memory then", rss_bytes, "bytes", "at its best", at_peak_bytes, at_peak_bytes / rss_bytes
            ),
            Figure(
                BENCH, f"first token beside a flood of {10 * CAPACITY}", statistics.median(beside), "s", "alone",
                statistics.median(alone), ratio,
            ),
            Figure(BENCH, "refusals then, median", statistics.median(refusals), "s"),
            Figure(BENCH, "refusals then, 95th percentile", statistics.quantiles(refusals, n=20)[-1], "s"),
            Figure(BENCH, f"refusals then, slowest of {N_REFUSALS}", max(refusals), "s"),
        ]  # fmt: skip

    def _goodput(self, n_streams: int) -> tuple[float, int, int]:
        """(tokens/s, the most that the KV cache took, the most memory) with so many streams at once."""
        with self._crowd(n_streams) as crowd:
            tokens = _tokens(crowd)
            next(tokens)
            time.sleep(SETTLE_S)
            before, started_s = next(tokens), time.monotonic()
            cache_bytes = rss_bytes = 0
            while time.monotonic() - started_s < MEASURE_S:
                time.sleep(0.5)
                cache_bytes = max(cache_bytes, self._note("cache_bytes"))
                rss_bytes = max(rss_bytes, self._process.memory_info().rss)
            return (next(tokens) - before) / (time.monotonic() - started_s), cache_bytes, rss_bytes

    def _light(self) -> list[float]:
        """Seconds to the first token, of one after the other."""
        with self._crowd(1, "--light", str(N_LIGHT)) as child:
            times = child.wait_for("first_tokens", 300.0)["seconds"]
        return [float(seconds) for seconds in times]

    async def _refusals(self) -> list[float]:
        """Seconds from an Open to its refusal: whoever holds what a newcomer gets is refused as everybody else."""
        key = NodeKey.generate()
        span = Span(0, ARGS.n_layers)
        hop = Hop(self._node.node_id, self._node.address, span)
        opening = Open(
            SessionId("00" * 16), 1, Infohash(Magnet.parse(self._magnet).infohash), key.node_id, (hop,), 0,
            self._profile, 600, 1, known_positions=300,
        )  # fmt: skip
        times: list[float] = []
        async with Dialer(issue(key), NetworkConfig.named("loopback").rpc) as dialer:
            connection = await dialer.connect(hop.address, hop.node_id)
            held = []
            while len(times) < N_REFUSALS:
                started_s = time.perf_counter()
                call = connection.run(dataclasses.replace(opening, session_id=SessionId(os.urandom(16).hex())))
                try:
                    assert isinstance(await anext(call.replies()), Opened)
                    held.append(call)
                except StageFull:
                    times.append(time.perf_counter() - started_s)
                await asyncio.sleep(0.02)
            for call in held:
                call.cancel()
        return times

    @property
    def _profile(self) -> Profile:
        return Profile.parse(str(self._read_note()["profile"]))

    def _note(self, name: str) -> int:
        return int(self._read_note()[name])

    def _read_note(self) -> dict[str, object]:
        return dict(json.loads((self._node_dir / "node.json").read_text()))

    @contextlib.contextmanager
    def _crowd(self, n_streams: int, *options: str) -> Iterator[Child]:
        arguments = (self._magnet, str(self._work_dir / "crowd"), str(self._node.address), str(n_streams), *options)
        child = Child("crowd", arguments, self._work_dir / "crowd.log", module="benchmarks.crowd")
        try:
            child.wait_for("ready", START_TIMEOUT_S)
            yield child
        finally:
            stop_all([child])


def _tokens(child: Child) -> Iterator[int]:
    """How many tokens the crowd has got by now."""
    n_tokens = 0
    while True:
        child.wait_for("started", START_TIMEOUT_S)
        while (event := child.next_event(time.monotonic() + 0.01)) is not None:
            n_tokens = int(event.get("n_tokens", n_tokens))
        yield n_tokens
