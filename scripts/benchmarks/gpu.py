"""gpu: on an NVIDIA GPU a layer of the real 8x7B, a Mixtral of 1.5e9 parameters through the stage, and a whole 8x7B in
8 and 4 bits, against transformers there and the speed of its memory.
"""

from __future__ import annotations

import asyncio
import gc
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.engine import Engine, Layer
from benchmarks.figures import Figure, Measure
from benchmarks.memory_read import MemoryRead
from benchmarks.models import (
    LAYER_8X7B,
    MIXTRAL_1B5,
    layer_bytes,
    layer_tensors,
    prompts_of,
    step_bytes,
    write_model,
)
from benchmarks.racing import FAST, LIMIT, QUANTISED, TRANSFORMERS, race
from benchmarks.transformers_batch import TransformersBatch, TransformersLayer
from node.model import Numerics, SpanModel, why_no_gpu_kernels
from swarm.errors import BadArgument
from swarm.release import ModelArgs, all_shapes
from swarm.terms import Span

BENCH = "gpu"
DEVICE = "cuda"
PROMPT_TOKENS = 512
DECODE_TOKENS = 32
DEFAULT_ROUNDS = 9
WHOLE_8X7B = replace(LAYER_8X7B, n_layers=32, windows=(None,) * 32, vocab_size=32000, max_positions=32768)

_LAYERS = {f"8x7B layer, {n_cached} cached": n_cached for n_cached in (512, 4096, 32768)}
_LAYER_PROMPT = f"8x7B layer, prompt of {PROMPT_TOKENS}"
_DECODES = {f"1.5e9 Mixtral, {n} session{'s' if n > 1 else ''}": n for n in (1, 8, 32)}
_PREFILL = f"1.5e9 Mixtral, prompt of {PROMPT_TOKENS}"
_WHOLE = {f"8x7B whole, {quantisation}": quantisation for quantisation in QUANTISED}
CASES = (*_LAYERS, _LAYER_PROMPT, *_DECODES, _PREFILL, *_WHOLE)


def run(work_dir: Path, n_rounds: int, cases: Sequence[str]) -> list[Figure]:
    if not torch.cuda.is_available() or (why := why_no_gpu_kernels(torch.device(DEVICE))):
        why = why if torch.cuda.is_available() else "there is no NVIDIA GPU, or torch's build has no CUDA"
        raise BadArgument(f"nothing to measure: {why}")
    figures: list[Figure] = []
    layers = {case: n_cached for case, n_cached in _LAYERS.items() if case in cases}
    if layers or _LAYER_PROMPT in cases:
        figures += asyncio.run(_layer(n_rounds, layers, _LAYER_PROMPT in cases))
    _forget()
    if {*_DECODES, _PREFILL} & set(cases):
        folder = work_dir / "model"
        write_model(MIXTRAL_1B5, folder)
        figures += asyncio.run(_model(folder, n_rounds, cases))
    _forget()
    for case, quantisation in _WHOLE.items():
        if case in cases:
            figures += asyncio.run(_whole(case, quantisation, n_rounds))
            _forget()
    return figures


async def _layer(n_rounds: int, cases: Mapping[str, int], with_prompt: bool) -> list[Figure]:
    memory = MemoryRead(device=DEVICE)
    tensors = layer_tensors(LAYER_8X7B)
    ours = {FAST: Layer(LAYER_8X7B, tensors, Numerics(), DEVICE)}
    ours |= {name: Layer(LAYER_8X7B, tensors, Numerics(quantisation=name), DEVICE) for name in QUANTISED}
    figures: list[Figure] = []
    for case, n_cached in cases.items():
        theirs = TransformersLayer(LAYER_8X7B, tensors, n_cached, DEVICE)
        contestants: dict[str, Measure] = {
            LIMIT: partial(memory.tokens_per_s, layer_bytes(LAYER_8X7B, n_cached)),
            TRANSFORMERS: partial(theirs.tokens_per_s, DECODE_TOKENS),
        }
        contestants |= {name: partial(layer.tokens_per_s, n_cached, DECODE_TOKENS) for name, layer in ours.items()}
        figures += await race(BENCH, case, "tokens/s", contestants, n_rounds)
        del theirs, contestants
        _forget()
    if with_prompt:
        theirs = TransformersLayer(LAYER_8X7B, tensors, 0, DEVICE)
        contestants = {TRANSFORMERS: partial(theirs.prompt_tokens_per_s, PROMPT_TOKENS, 8)}
        contestants |= {name: partial(layer.prompt_tokens_per_s, PROMPT_TOKENS, 8) for name, layer in ours.items()}
        figures += await race(BENCH, _LAYER_PROMPT, "tokens/s", contestants, n_rounds)
    return figures


async def _model(folder: Path, n_rounds: int, cases: Sequence[str]) -> list[Figure]:
    memory = MemoryRead(device=DEVICE)
    theirs = TransformersBatch(folder, "bf16", DEVICE)
    ours = {FAST: Engine(folder, is_exact=False, device=DEVICE)}
    figures: list[Figure] = []
    try:
        for case, n_sessions in _DECODES.items():
            if case not in cases:
                continue
            prompts = prompts_of(n_sessions, 64, MIXTRAL_1B5.vocab_size)
            contestants: dict[str, Measure] = {TRANSFORMERS: partial(theirs.decode, prompts, DECODE_TOKENS)}
            if n_sessions == 1:
                contestants[LIMIT] = partial(memory.tokens_per_s, step_bytes(MIXTRAL_1B5, 64))
            contestants |= {name: partial(engine.decode, prompts, DECODE_TOKENS) for name, engine in ours.items()}
            figures += await race(BENCH, case, "tokens/s", contestants, n_rounds)
        if _PREFILL in cases:
            (prompt,) = prompts_of(1, PROMPT_TOKENS, MIXTRAL_1B5.vocab_size)
            contestants = {TRANSFORMERS: partial(theirs.prefill, prompt)}
            contestants |= {name: partial(engine.prefill, prompt) for name, engine in ours.items()}
            figures += await race(BENCH, _PREFILL, "tokens/s", contestants, n_rounds)
    finally:
        for engine in ours.values():
            engine.close()
    return figures


async def _whole(case: str, quantisation: str, n_rounds: int) -> list[Figure]:
    """A token through all layers and the head, by the stage; the limit is of the bytes of this quantisation."""
    memory = MemoryRead(device=DEVICE)
    numerics = Numerics(quantisation=quantisation)
    model = SpanModel(WHOLE_8X7B, Span(0, WHOLE_8X7B.n_layers), numerics, device=DEVICE)
    for layer_idx in model.span:
        model.load_layer(layer_idx, _Drawn(WHOLE_8X7B, f"layers.{layer_idx}."))
    ends = _Drawn(WHOLE_8X7B, "")
    model.load_embeddings(ends["tok_embeddings.weight"])
    model.load_head(ends["norm.weight"], ends["output.weight"])
    engine = Engine.of(model)
    (prompt,) = prompts_of(1, 64, WHOLE_8X7B.vocab_size)
    in_layers = step_bytes(WHOLE_8X7B, 64) - 2 * WHOLE_8X7B.vocab_size * WHOLE_8X7B.dim
    n_bytes = in_layers * numerics.layer_bytes_per_value / 2 + 2 * WHOLE_8X7B.vocab_size * WHOLE_8X7B.dim
    contestants: dict[str, Measure] = {
        LIMIT: partial(memory.tokens_per_s, int(n_bytes)),
        FAST: partial(engine.decode, [prompt], DECODE_TOKENS),
    }
    try:
        return await race(BENCH, case, "tokens/s", contestants, n_rounds)
    finally:
        engine.close()


class _Drawn(Mapping[str, Tensor]):
    """Random tensors of a model on the device, by the names behind a prefix, each drawn when it is asked for."""

    def __init__(self, args: ModelArgs, prefix: str) -> None:
        shapes = all_shapes(args)
        self._shapes = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}

    def __getitem__(self, name: str) -> Tensor:
        shape = self._shapes[name]
        if name.endswith("norm.weight"):
            return torch.ones(shape, dtype=torch.bfloat16, device=DEVICE)
        return torch.randn(shape, dtype=torch.bfloat16, device=DEVICE).mul_(math.sqrt(1 / shape[-1]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


def _forget() -> None:
    gc.collect()
    torch.cuda.empty_cache()
