"""stages: two stages of one thread each against one process of one thread, with four sequences in flight, on a Mixtral
as wide as real ones begin to be. One process computes the four as one batch; the stages compute two each at a time, so
that both are at work, and read their weights twice for it.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import torch

from benchmarks.figures import Figure, faster, take_turns
from benchmarks.models import prompts_of
from benchmarks.one_process import OneProcess
from benchmarks.pipeline import PEER, PROMPT_TOKENS, TURN_TOKENS, Guest, Team
from benchmarks.processes import Processes, serving
from node.weights import PRESETS, write_release
from swarm.torrent import Magnet

BENCH = "stages"
ARGS = dataclasses.replace(
    PRESETS["demo"].args, dim=2048, n_layers=6, n_heads=16, n_kv_heads=4, head_dim=128, hidden_dim=4096,
    windows=(None,) * 6,
)  # fmt: skip
"""2.7 GB in bf16."""

_COUNTS = {f"decode, 2 stages, {n} in flight": n for n in (1, 2, 4)}
CASES = tuple(_COUNTS)
DEFAULT_ROUNDS = 7


def run(work_dir: Path, n_rounds: int, cases: Sequence[str]) -> list[Figure]:
    torch.set_num_threads(1)
    folder = work_dir / "wide"
    write_release(ARGS, folder, n_shards=6, tokenizer=PRESETS["demo"].tokenizer)
    with Processes(work_dir) as processes:
        seeder, magnet = processes.seed(folder)
        with serving(processes, magnet, ["0:3", "3:6"], "bf16") as nodes:
            processes.stop(seeder)
            guest = Guest(folder, Magnet.parse(magnet).infohash, "bf16", nodes)
            return asyncio.run(_measure(guest, OneProcess(folder, "bf16", is_exact=True), n_rounds, cases))


async def _measure(guest: Guest, peer: OneProcess, n_rounds: int, cases: Sequence[str]) -> list[Figure]:
    figures: list[Figure] = []
    try:
        async with guest:
            for case in cases:
                figures.append(await _decode(guest, peer, case, n_rounds))
    finally:
        peer.close()
    return figures


async def _decode(guest: Guest, peer: OneProcess, case: str, n_rounds: int) -> Figure:
    """Raises: AssertionError when a token differs between the stages and the one process."""
    prompts = prompts_of(_COUNTS[case], PROMPT_TOKENS, ARGS.vocab_size)
    n_tokens = TURN_TOKENS * (n_rounds + 1) + 1
    told: dict[str, list[list[int]]] = {"ours": [], "peer": []}
    stages = Team([_kept(guest.generate(prompt, n_tokens, 2), told["ours"]) for prompt in prompts])
    one = Team([_kept(peer.generate(prompt, n_tokens), told["peer"]) for prompt in prompts])
    try:
        rounds = await take_turns({"ours": stages.turn, PEER: one.turn}, n_rounds)
    finally:
        await stages.close()
        await one.close()
    assert told["ours"] == told["peer"], "the tokens differ"
    return faster(BENCH, case, "tok/s", rounds["ours"], PEER, rounds[PEER])


async def _kept(sequence: AsyncGenerator[object, None], told: list[list[int]]) -> AsyncGenerator[object, None]:
    """The same, its ids noted in a list of their own."""
    ids: list[int] = []
    told.append(ids)
    async for token in sequence:
        ids.append(getattr(token, "id", token))  # type: ignore[arg-type]
        yield token
