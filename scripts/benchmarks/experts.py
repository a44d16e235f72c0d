"""experts: a layer's experts in other processes, near and far, against all of them here and against a split by layers.

One thread a process. Distance is a TCP proxy of ours that holds bytes back (benchmarks/delay.py); at RTT 0 there is
none in between. Tokens are checked to be the same everywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import statistics
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks.delay import Delay
from benchmarks.engine import Engine, Layer
from benchmarks.figures import Figure, Measure, faster, take_turns
from benchmarks.models import LAYER_8X7B, MIXTRAL_1B5, layer_tensors, prompts_of
from benchmarks.parts import NUMERICS, PROFILE, RELEASE, Part, Parts, holding_of, load_parts
from benchmarks.split import Split
from node.experts import Directory, Dispatcher
from swarm.identity import NodeKey, issue
from swarm.messages import ExpertOpen
from swarm.release import ModelArgs
from swarm.rpc import Dialer, RpcConfig
from swarm.terms import Address, NodeId

BENCH = "experts"
HERE = "all here"
RTTS_MS = (0, 1, 5, 20)
N_SESSIONS = 8
PROMPT_TOKENS = 16
DECODE_TOKENS = 6
DEFAULT_ROUNDS = 5
CASES = ("experts on 2", "experts on 4", "layers on 2", "8x7b layer")


def run(work_dir: Path, n_rounds: int, cases: Sequence[str] = CASES) -> list[Figure]:
    torch.set_num_threads(1)
    figures = asyncio.run(_model(n_rounds, cases))
    gc.collect()
    return figures + (asyncio.run(_layer(n_rounds)) if "8x7b layer" in cases else [])


async def _model(n_rounds: int, cases: Sequence[str]) -> list[Figure]:
    """The Mixtral of 1.5e9: experts on two and on four, then half of the layers on another."""
    if not set(cases).intersection(CASES[:3]):
        return []
    models, _ = load_parts(MIXTRAL_1B5, holding_of(MIXTRAL_1B5, "layers 0:16"))
    here = Engine.of(next(iter(models.values())))
    figures: list[Figure] = []
    try:
        for n_parts in (2, 4):
            if f"experts on {n_parts}" in cases:
                with Parts("mixtral-1b5", expert_parts(MIXTRAL_1B5, n_parts)) as parts:
                    figures += await _experts_on(parts, here, n_rounds)
        if "layers on 2" in cases:
            with Parts("mixtral-1b5", ["layers 0:8", "layers 8:16"]) as parts:
                figures += await _split(parts, here, n_rounds)
    finally:
        here.close()
    return figures


def expert_parts(args: ModelArgs, n_parts: int) -> list[str]:
    """The experts of all layers by turns: `experts 0-15:0,2,4,6` and so on."""
    layers = f"0-{args.n_layers - 1}" if args.n_layers > 1 else "0"
    return [f"experts {layers}:{','.join(map(str, range(nth, args.n_experts, n_parts)))}" for nth in range(n_parts)]


async def _experts_on(parts: Sequence[Part], here: Engine, n_rounds: int) -> list[Figure]:
    figures = []
    prompts = prompts_of(N_SESSIONS, PROMPT_TOKENS, MIXTRAL_1B5.vocab_size)
    where = f"experts on {len(parts)}"
    at_once: dict[int, float] = {}
    async for rtt_ms, rtt_s, dispatcher in distances(parts, MIXTRAL_1B5):
        models, _ = load_parts(MIXTRAL_1B5, holding_of(MIXTRAL_1B5, "trunk 0:16"), dispatcher)
        away = Engine.of(next(iter(models.values())))
        try:
            assert await away.ids(prompts[0], 8) == await here.ids(prompts[0], 8), "the tokens differ"
            contestants: dict[str, Measure] = {
                HERE: partial(here.decode, prompts[:1], DECODE_TOKENS),
                where: partial(away.decode, prompts[:1], DECODE_TOKENS),
            }
            if rtt_ms in (0, 5):
                contestants["together"] = partial(away.decode, prompts, DECODE_TOKENS)
                contestants["together here"] = partial(here.decode, prompts, DECODE_TOKENS)
            rounds = await take_turns(contestants, n_rounds)
        finally:
            away.close()
        case = f"decode, {where}, RTT {rtt_ms} ms"
        figures.append(faster(BENCH, case, "tok/s", rounds[where], HERE, rounds[HERE]))
        at_once[rtt_ms] = statistics.median(rounds[where])
        if rtt_ms:
            added_s = 1 / at_once[rtt_ms] - 1 / at_once[0]
            in_rtts = added_s / MIXTRAL_1B5.n_layers / rtt_s
            case = f"added by a layer, {where}, RTT {rtt_ms} ms (measured {1000 * rtt_s:.1f})"
            figures.append(Figure(BENCH, case, in_rtts, "RTT"))
        if "together" in rounds:
            case = f"decode, {where}, RTT {rtt_ms} ms, {N_SESSIONS} sessions"
            figures.append(faster(BENCH, case, "tok/s", rounds["together"], "1 session", rounds[where]))
            peer = f"{HERE}, {N_SESSIONS} sessions"
            figures.append(faster(BENCH, case, "tok/s", rounds["together"], peer, rounds["together here"]))
    return figures


async def _split(parts: Sequence[Part], here: Engine, n_rounds: int) -> list[Figure]:
    """Two halves of the layers, the second one far away."""
    figures = []
    prompts = prompts_of(N_SESSIONS, PROMPT_TOKENS, MIXTRAL_1B5.vocab_size)
    with Delay([parts[1].address]) as delay:
        for rtt_ms in RTTS_MS:
            delay.set_rtt(rtt_ms / 1000)
            addresses = [parts[0].address, delay.addresses[0] if rtt_ms else parts[1].address]
            async with Split(MIXTRAL_1B5, parts, addresses) as split:
                contestants: dict[str, Measure] = {
                    HERE: partial(here.decode, prompts[:1], DECODE_TOKENS),
                    "split": partial(split.decode, prompts[:1], DECODE_TOKENS),
                }
                if rtt_ms in (0, 5):
                    contestants["together"] = partial(split.decode, prompts, DECODE_TOKENS)
                rounds = await take_turns(contestants, n_rounds)
            case = f"decode, layers on 2, RTT {rtt_ms} ms"
            figures.append(faster(BENCH, case, "tok/s", rounds["split"], HERE, rounds[HERE]))
            if "together" in rounds:
                case = f"{case}, {N_SESSIONS} sessions"
                figures.append(faster(BENCH, case, "tok/s", rounds["together"], "1 session", rounds["split"]))
    return figures


async def _layer(n_rounds: int) -> list[Figure]:
    """One layer of 8x7B, its experts on two."""
    figures = []
    tensors = layer_tensors(LAYER_8X7B)
    here = Layer(LAYER_8X7B, tensors, NUMERICS)
    del tensors
    with Parts("8x7b-layer", expert_parts(LAYER_8X7B, 2)) as parts:
        async for rtt_ms, _, dispatcher in distances(parts, LAYER_8X7B):
            models, _ = load_parts(LAYER_8X7B, holding_of(LAYER_8X7B, "trunk 0:1"), dispatcher)
            away = Layer.of(next(iter(models.values())))
            contestants: dict[str, Measure] = {
                HERE: partial(here.tokens_per_s, 512),
                "away": partial(away.tokens_per_s, 512),
            }
            rounds = await take_turns(contestants, n_rounds)
            case = f"8x7B layer, experts on 2, RTT {rtt_ms} ms"
            figures.append(faster(BENCH, case, "tokens/s", rounds["away"], HERE, rounds[HERE]))
    return figures


async def distances(parts: Sequence[Part], args: ModelArgs) -> AsyncIterator[tuple[int, float, Dispatcher]]:
    """Each of RTTS_MS, the seconds that were measured for it, and a dispatcher that reaches the parts from so far."""
    with Delay([part.address for part in parts]) as delay:
        for rtt_ms in RTTS_MS:
            delay.set_rtt(rtt_ms / 1000)
            addresses = delay.addresses if rtt_ms else [part.address for part in parts]
            async with dispatching(parts, addresses, args) as dispatcher:
                yield rtt_ms, delay.measure_rtt(), dispatcher


@contextlib.asynccontextmanager
async def dispatching(
    parts: Sequence[Part], addresses: Sequence[Address], args: ModelArgs
) -> AsyncIterator[Dispatcher]:
    facts = [part.told(address, args) for part, address in zip(parts, addresses, strict=True)]
    async with Dialer(issue(NodeKey.generate()), RpcConfig.loopback()) as dialer:
        directory = Directory(lambda: facts, NodeId(""), PROFILE, (args.n_layers, args.n_experts))
        dispatcher = Dispatcher(directory, dialer, ExpertOpen(RELEASE, PROFILE))
        try:
            yield dispatcher
        finally:
            await dispatcher.close()
