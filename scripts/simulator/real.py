"""The model of a node against real ones: ten processes on loopback that place themselves, and one client."""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
import time
from pathlib import Path

from benchmarks.processes import READY_TIMEOUT_S, Processes

from node.hosting.budget import RESERVED_SHARE
from node.weights import PRESETS, write_release
from swarm.client import connect_async
from swarm.release import ModelArgs
from swarm.routing import route_cost_s
from swarm.sampling import SamplingParams

ARGS = dataclasses.replace(
    PRESETS["demo"].args, dim=1024, n_layers=12, n_heads=8, n_kv_heads=2, head_dim=128, hidden_dim=2048,
    windows=(None,) * 12,
)  # fmt: skip
"""Layers that take a millisecond or more, as real ones do: a hop is then a part of the time and not all of it."""

BUDGETS = (2, 3, 4, 2, 3, 4, 2, 3, 4, 3)
N_TOKENS = 64
N_ROUNDS = 5
FACT_AGE_S = 2.0
"""A fact on loopback tells what its node measured so long ago at most."""


TOLERANCE = 0.2


def check() -> tuple[str, bool]:
    """Tokens per second of one session as the simulator's costs predict them from the facts, and as they come -> both
    in words, and whether they differ by no more than TOLERANCE.
    """
    with tempfile.TemporaryDirectory(prefix="swarm-simulate-") as folder, Processes(Path(folder)) as processes:
        release = Path(folder) / "release"
        write_release(ARGS, release, n_shards=4, tokenizer=PRESETS["demo"].tokenizer)
        seeder, magnet = processes.seed(release)
        children = [
            processes.join(magnet, "", "bf16", "--threads", "1", "--memory", str(memory_for(n)), "--profile", "fast")
            for n in BUDGETS
        ]
        ready = [child.wait_for("ready", READY_TIMEOUT_S) for child in children]
        processes.stop(seeder)
        predicted, measured, n_hops = asyncio.run(_race(magnet, [str(event["address"]) for event in ready]))
    words = (
        f"{len(BUDGETS)} nodes, a route of {n_hops} hops: predicted {predicted:.1f} tok/s, "
        f"measured {measured:.1f} tok/s, ratio {predicted / measured:.2f}"
    )
    return words, abs(predicted / measured - 1) <= TOLERANCE


def memory_for(n_layers: int, args: ModelArgs = ARGS) -> int:
    """What --memory says for so many layers and the two ends, in bf16."""
    return int((2 * args.vocab_size * args.dim + n_layers * args.n_layer_params) * 2 / (1 - RESERVED_SHARE)) + 1024


async def _race(magnet: str, addresses: list[str]) -> tuple[float, float, int]:
    """The prediction is by what the nodes say after each round; both are medians of the rounds."""
    rounds: list[tuple[float, float, int]] = []
    async with connect_async(magnet, network="loopback", peers=addresses[:1], timeout_s=READY_TIMEOUT_S) as client:
        for _ in range(1 + N_ROUNDS):
            stream = client.stream(list(range(5, 13)), SamplingParams(max_tokens=N_TOKENS, temperature=0.0))
            times = []
            async with stream:
                async for _ in stream:
                    times.append(time.perf_counter())
            took_s = (times[-1] - times[0]) / (len(times) - 1)
            route = stream.result.route
            assert route is not None
            await asyncio.sleep(FACT_AGE_S)
            facts = (await client.status()).nodes
            rounds.append((1 / route_cost_s(route, facts), 1 / took_s, len(route.hops)))
    steady = sorted(rounds[1:], key=lambda one: one[0] / one[1])
    return steady[N_ROUNDS // 2]
