"""Two ways to answer prompts greedily in fp32: all layers in this process, and a swarm of three nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.one_process import OneProcess

from embedded.rendering import EOS
from swarm.cli.local_swarm import N_NODES, LocalSwarm, split_layers
from swarm.client import connect_async
from swarm.release import read_folder_layout
from swarm.sampling import SamplingParams

MAX_NEW_TOKENS = 160
N_CONCURRENT = 8

Answers = list[tuple[int, ...]]
Progress = Callable[[int], None]


def answer_in_one_process(folder: Path, prompts: Sequence[tuple[int, ...]], progress: Progress) -> Answers:
    """Each prompt's greedy ids, the end included when it came."""
    return asyncio.run(_one_process(folder, prompts, progress))


async def _one_process(folder: Path, prompts: Sequence[tuple[int, ...]], progress: Progress) -> Answers:
    engine = OneProcess(folder, "fp32")
    try:
        answers: Answers = []
        for prompt in prompts:
            ids: list[int] = []
            async for token_id in engine.generate(list(prompt), MAX_NEW_TOKENS):
                ids.append(token_id)
                if token_id == EOS:
                    break
            answers.append(tuple(ids))
            progress(len(answers))
        return answers
    finally:
        engine.close()


def answer_by_swarm(folder: Path, prompts: Sequence[tuple[int, ...]], work_dir: Path, progress: Progress) -> Answers:
    """The same from three nodes that fetched their thirds of the release over BitTorrent, several prompts at a time."""
    with LocalSwarm(work_dir) as swarm:
        swarm.seed(folder)
        nodes = swarm.start_nodes(split_layers(read_folder_layout(folder).args.n_layers, N_NODES), lambda node: None)
        peers = [str(node.address) for node in nodes]
        return asyncio.run(_by_client(swarm.magnet, peers, swarm.client_data_dir, prompts, progress))


async def _by_client(
    magnet: str, peers: list[str], data_dir: Path, prompts: Sequence[tuple[int, ...]], progress: Progress
) -> Answers:
    params = SamplingParams(temperature=0.0, max_tokens=MAX_NEW_TOKENS)
    slots = asyncio.Semaphore(N_CONCURRENT)
    n_done = 0
    async with connect_async(magnet, peers=peers, network="loopback", data_dir=data_dir) as client:

        async def answer(prompt: tuple[int, ...]) -> tuple[int, ...]:
            nonlocal n_done
            async with slots:
                generation = await client.generate(list(prompt), params)
            n_done += 1
            progress(n_done)
            return generation.ids

        return list(await asyncio.gather(*(answer(prompt) for prompt in prompts)))
