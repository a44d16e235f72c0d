"""parity: the model's own speed and numbers in one process, against transformers.

Same weights, dtype, threads and prompts. Of transformers' two ways to decode, the faster is the peer. In bf16 both are
judged by the fp32 logits of transformers: rounding moves the top choice of either now and then.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import statistics
import time
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.figures import Figure, Measure, faster, take_turns
from benchmarks.one_process import OneProcess, prompt_of
from benchmarks.transformers_peer import FORWARD, GENERATE, Transformers
from node.model import KVCache
from node.stage import DTYPES
from node.weights import PRESETS, write_preset, write_release
from swarm.terms import Span

BENCH = "parity"
OURS = "ours"
PROMPT_TOKENS = 16
DECODE_TOKENS = 9
PREFILL_TOKENS = 512
LOGIT_TOKENS = 256
DEFAULT_ROUNDS = 6

LARGER = dataclasses.replace(
    PRESETS["demo"].args,
    dim=1024,
    n_layers=8,
    n_heads=16,
    n_kv_heads=4,
    head_dim=64,
    hidden_dim=3584,
    windows=(None,) * 8,
)
"""1.5 GB in bf16: too large for any cache, as real models are."""


def run(work_dir: Path, n_rounds: int) -> list[Figure]:
    """Figures for a small and a larger Mixtral, in both dtypes, on one thread."""
    torch.set_num_threads(1)
    demo, larger = work_dir / "demo", work_dir / "larger"
    write_preset("demo", demo)
    write_release(LARGER, larger, n_shards=4)
    figures: list[Figure] = []
    for name, folder in (("demo (dim 256)", demo), ("larger (dim 1024)", larger)):
        reference: Tensor | None = None
        for dtype in ("fp32", "bf16"):
            measured, logits = asyncio.run(_measure(f"{name} {dtype}", folder, dtype, n_rounds, reference))
            figures += measured
            reference = logits if reference is None else reference
            gc.collect()  # two models of one dtype fit, four may not
    return figures


async def _measure(
    name: str, folder: Path, dtype: str, n_rounds: int, reference: Tensor | None
) -> tuple[list[Figure], Tensor]:
    """The figures of one model in one dtype, and transformers' logits. reference: those in fp32, once known."""
    ours, theirs = OneProcess(folder, dtype), Transformers(folder, dtype)
    try:
        figures = [await _decode(name, ours, theirs, n_rounds), await _prefill(name, ours, theirs, n_rounds)]
        prompt = prompt_of(LOGIT_TOKENS, ours.args.vocab_size)
        logits = theirs.logits(prompt)
        return figures + _compare(name, _logits(ours, prompt, dtype), logits, reference), logits
    finally:
        ours.close()


async def _decode(name: str, ours: OneProcess, theirs: Transformers, n_rounds: int) -> Figure:
    prompt = prompt_of(PROMPT_TOKENS, ours.args.vocab_size)
    contestants: dict[str, Measure] = {
        OURS: partial(_paced, ours.generate, prompt),
        GENERATE: partial(theirs.generate, prompt, DECODE_TOKENS),
        FORWARD: partial(_paced, theirs.forward_loop, prompt),
    }
    rounds = await take_turns(contestants, n_rounds)
    peer = max((GENERATE, FORWARD), key=lambda name: statistics.median(rounds[name]))
    return faster(BENCH, f"decode {name}", "tok/s", rounds[OURS], peer, rounds[peer])


async def _prefill(name: str, ours: OneProcess, theirs: Transformers, n_rounds: int) -> Figure:
    prompt = prompt_of(PREFILL_TOKENS, ours.args.vocab_size)
    contestants: dict[str, Measure] = {OURS: partial(ours.prefill, prompt), FORWARD: partial(theirs.prefill, prompt)}
    rounds = await take_turns(contestants, max(2, n_rounds // 3))
    case = f"prefill {PREFILL_TOKENS} {name}"
    return faster(BENCH, case, "tok/s", rounds[OURS], "transformers forward", rounds[FORWARD])


async def _paced(generate: object, prompt: list[int]) -> float:
    """Tokens/s of the tokens after the first."""
    assert callable(generate)
    sequence: AsyncGenerator[int, None] = generate(prompt, DECODE_TOKENS)
    await anext(sequence)
    started_s = time.perf_counter()
    for _ in range(DECODE_TOKENS - 1):
        await anext(sequence)
    elapsed_s = time.perf_counter() - started_s
    await sequence.aclose()
    return (DECODE_TOKENS - 1) / elapsed_s


def _logits(ours: OneProcess, prompt: list[int], dtype: str) -> Tensor:
    """fp32 (T, vocab)."""
    cache = KVCache(ours.args, Span(0, ours.args.n_layers), dtype=DTYPES[dtype], device="cpu")
    return ours.model.logits(ours.model.forward(ours.model.embed(torch.tensor(prompt)), cache, 0))


def _compare(name: str, ours: Tensor, theirs: Tensor, reference: Tensor | None) -> list[Figure]:
    if reference is None:
        error, scale = (ours - theirs).abs().max().item(), theirs.abs().max().item()
        return [Figure(BENCH, f"largest logit error {name}, of logits up to {scale:.1f}", error, "|dlogit|")]
    agreeing, peers = (_agreement(logits, reference) for logits in (ours, theirs))
    case = f"top-1 agreement with fp32 {name}"
    return [Figure(BENCH, case, agreeing, "of rows", "transformers bf16", peers, agreeing / peers if peers else None)]


def _agreement(ours: Tensor, theirs: Tensor) -> float:
    return (ours.argmax(-1) == theirs.argmax(-1)).float().mean().item()
