"""decode: one token at a time, one thread: a real 8x7B layer against transformers' and the speed of memory, then a
whole Mixtral of 1.5e9 parameters through the stage against transformers and llama.cpp.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks.engine import Layer
from benchmarks.figures import Figure, Measure
from benchmarks.memory_read import MemoryRead
from benchmarks.models import LAYER_8X7B, MIXTRAL_1B5, layer_bytes, layer_tensors, prompts_of, step_bytes
from benchmarks.racing import EXACT, FAST, LIMIT, LLAMA_CPP, QUANTISED, TRANSFORMERS, Racers, race, racers
from benchmarks.transformers_batch import TransformersLayer
from node.model import Numerics

BENCH = "decode"
N_CACHED = (512, 4096, 32768)
PROMPT_TOKENS = 16
DECODE_TOKENS = 6
DEFAULT_ROUNDS = 9
_LAYERS = {f"8x7B layer, {n_cached} cached": n_cached for n_cached in N_CACHED}
_MODEL = "1.5e9 Mixtral"
CASES = (*_LAYERS, _MODEL)


def run(work_dir: Path, n_rounds: int, cases: Sequence[str]) -> list[Figure]:
    torch.set_num_threads(1)
    figures: list[Figure] = []
    if layers := {case: n_cached for case, n_cached in _LAYERS.items() if case in cases}:
        figures += asyncio.run(_layer(n_rounds, layers))
        gc.collect()
    if _MODEL in cases:
        with racers(work_dir) as everyone:
            figures += asyncio.run(_model(everyone, n_rounds))
    return figures


async def _layer(n_rounds: int, cases: Mapping[str, int]) -> list[Figure]:
    memory = MemoryRead()
    tensors = layer_tensors(LAYER_8X7B)
    ours = {name: Layer(LAYER_8X7B, tensors, Numerics(is_exact=name == EXACT)) for name in (EXACT, FAST)}
    ours |= {name: Layer(LAYER_8X7B, tensors, Numerics(quantisation=name)) for name in QUANTISED}
    figures: list[Figure] = []
    for case, n_cached in cases.items():
        theirs = TransformersLayer(LAYER_8X7B, tensors, n_cached)
        contestants: dict[str, Measure] = {
            LIMIT: partial(memory.tokens_per_s, layer_bytes(LAYER_8X7B, n_cached)),
            TRANSFORMERS: theirs.tokens_per_s,
        }
        contestants |= {name: partial(layer.tokens_per_s, n_cached) for name, layer in ours.items()}
        figures += await race(BENCH, case, "tokens/s", contestants, n_rounds)
        del theirs, contestants
        gc.collect()
    return figures


async def _model(everyone: Racers, n_rounds: int) -> list[Figure]:
    memory = MemoryRead()
    prompts = prompts_of(1, PROMPT_TOKENS, MIXTRAL_1B5.vocab_size)
    contestants: dict[str, Measure] = {
        LIMIT: partial(memory.tokens_per_s, step_bytes(MIXTRAL_1B5, PROMPT_TOKENS)),
        TRANSFORMERS: partial(everyone.transformers.decode, prompts, DECODE_TOKENS),
    }
    contestants |= {name: partial(engine.decode, prompts, DECODE_TOKENS) for name, engine in everyone.ours.items()}
    if everyone.llama_cpp is not None:
        contestants[LLAMA_CPP] = partial(everyone.llama_cpp.decode, prompts, DECODE_TOKENS)
    return await race(BENCH, _MODEL, "tokens/s", contestants, n_rounds)
