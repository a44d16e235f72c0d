"""failover: how fast generations are whose nodes are killed under them, and how long they pause for it.

Petals' sweep: three hops, each of which dies at each step with a probability; a spare stands by for each, and another
takes its place 40 ms later. Processes are killed for real. Beside it, what most engines do: begin the answer anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import statistics
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.herd import Herd, Sheep
from benchmarks.one_process import prompt_of
from node.weights import PRESETS, write_release
from swarm.sampling import SamplingParams
from swarm.terms import Span

BENCH = "failover"
UNDISTURBED = "undisturbed"
ARGS = replace(PRESETS["tiny-mixtral"].args, dim=512, hidden_dim=1024, n_heads=8, head_dim=64, vocab_size=8192)
SPANS = (Span(0, 2), Span(2, 4), Span(4, 6))
PROBABILITIES = (0.0, 1e-4, 1e-3, 1e-2)
PROMPT_TOKENS = 128
N_TOKENS = 300
RESTART_LIMIT_S = 12.0
"""How long beginning anew is tried for: at the highest probability it would hardly ever come to its end."""

CACHED = (128, 512, 1536)
DEFAULT_ROUNDS = 2


def run(work_dir: Path, n_rounds: int) -> list[Figure]:
    """Figures in the exact bf16 profile, one compute thread a process."""
    folder = work_dir / "failover"
    write_release(ARGS, folder)
    return asyncio.run(_measure(folder, n_rounds))


async def _measure(folder: Path, n_rounds: int) -> list[Figure]:
    async with Herd(folder, "bf16", exact=True) as herd:
        figures = await _gaps(herd, max(3, n_rounds))
        expected, undisturbed = {}, {}
        for seed in range(n_rounds):
            async with _served(herd, 0.0):
                expected[seed], undisturbed[seed] = await _generate(herd, seed)
        for probability in PROBABILITIES:
            figures += await _sweep(herd, probability, expected, undisturbed)
    return figures


async def _sweep(
    herd: Herd, probability: float, expected: dict[int, tuple[int, ...]], undisturbed: dict[int, float]
) -> list[Figure]:
    speeds, n_exact, n_lost = [], 0, 0
    for seed, ids in expected.items():
        async with _served(herd, probability) as lost:
            found, speed = await _generate(herd, seed)
        speeds.append(speed)
        n_exact += found == ids
        n_lost += len(lost)
    case = f"a hop dies at a step with probability {probability:g}"
    peers = list(undisturbed.values())
    ratio = statistics.median(a / b for a, b in zip(speeds, peers, strict=True))
    figures = [
        Figure(BENCH, case, statistics.median(speeds), "tok/s", UNDISTURBED, statistics.median(peers), ratio),
        Figure(BENCH, f"{case}: of {len(expected)} answers, complete and the same", n_exact, "answers"),
        Figure(BENCH, f"{case}: nodes killed", n_lost, "nodes"),
    ]
    if probability:
        async with _served(herd, probability):
            speed = await _begin_anew(herd)
        case = f"the same, begun anew after each loss, {probability:g}"
        figures.append(Figure(BENCH, case, speed, "tok/s", UNDISTURBED, peers[0], speed / peers[0]))
    return figures


async def _generate(herd: Herd, seed: int) -> tuple[tuple[int, ...], float]:
    """-> ids, tokens/s of the whole: prompt, pauses and all."""
    started_s = time.perf_counter()
    loop = herd.loop(prompt_of(PROMPT_TOKENS, ARGS.vocab_size), _params(seed))
    ids = tuple([event.id async for event in loop.events()])
    return ids, N_TOKENS / (time.perf_counter() - started_s)


async def _begin_anew(herd: Herd) -> float:
    """Tokens/s of an answer that is begun again whenever a node of its route dies; 0 if it never came to its end."""
    started_s = time.perf_counter()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(RESTART_LIMIT_S):
            while True:
                loop = herd.loop(prompt_of(PROMPT_TOKENS, ARGS.vocab_size), _params(0))
                n_lost = len(herd.noticed_s)
                async with contextlib.aclosing(loop.events()) as events:
                    async for event in events:
                        if len(herd.noticed_s) > n_lost:
                            break
                        if event.index == N_TOKENS - 1:
                            return N_TOKENS / (time.perf_counter() - started_s)
    return 0.0


async def _gaps(herd: Herd, n_rounds: int) -> list[Figure]:
    """What a loss of the second of three nodes costs, by how much is cached."""
    figures = []
    for n_cached, number in [*((n, signal.SIGKILL) for n in CACHED), (CACHED[0], signal.SIGSTOP)]:
        noticed, gaps = [], []
        for _ in range(n_rounds):
            async with _served(herd, 0.0):
                noticed_s, gap_s = await _gap(herd, n_cached, number)
            noticed.append(1000 * noticed_s)
            gaps.append(1000 * gap_s)
        case = f"{signal.Signals(number).name} of the second hop, {n_cached} cached"
        figures.append(Figure(BENCH, f"{case}: noticed after", statistics.median(noticed), "ms"))
        figures.append(Figure(BENCH, f"{case}: next token after", statistics.median(gaps), "ms"))
    return figures


async def _gap(herd: Herd, n_cached: int, number: int) -> tuple[float, float]:
    """-> seconds from the signal to when the client knows of it, and to the next token."""
    loop = herd.loop(prompt_of(n_cached - 4, ARGS.vocab_size), replace(_params(0), max_tokens=8))
    struck_s = gap_s = 0.0
    async for event in loop.events():
        if struck_s and not gap_s:
            gap_s = time.perf_counter() - struck_s
        if event.index == 3:
            route = loop.generation.route
            assert route is not None
            herd[route.hops[1].node_id].signal(number)
            struck_s = time.perf_counter()
    return herd.noticed_s[-1] - struck_s, gap_s


@contextlib.asynccontextmanager
async def _served(herd: Herd, crash: float) -> AsyncIterator[list[Sheep]]:
    """Two nodes for each span, as long as it lasts, each replaced when it dies -> those that died."""
    dead: list[Sheep] = []
    numbers = itertools.count()

    async def keep(span: Span) -> None:
        while True:
            sheep = await herd.bear(span, crash=crash, seed=f"{os.getpid()} {span} {crash} {next(numbers)}")
            try:
                await sheep.died.wait()
                dead.append(sheep)
            finally:
                sheep.kill()
                herd.bury(sheep)

    keeping = [asyncio.create_task(keep(span)) for span in SPANS * 2]
    try:
        while len(herd.nodes()) < len(keeping):
            await asyncio.sleep(0.01)
        yield dead
    finally:
        for task in keeping:
            task.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)


def _params(seed: int) -> SamplingParams:
    return SamplingParams(max_tokens=N_TOKENS, temperature=1.0, seed=seed, ignore_eos=True)
