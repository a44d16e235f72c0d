"""peers: what transformers and llama.cpp reach on a random Mixtral of 1.5e9 parameters, one thread, against the limit.

llama.cpp runs where it was built; before it is timed it is held to transformers, logits against logits. Each contestant
picks its fastest implementation for each shape first. 'ours' of the table is the limit here, for one sequence: no one
can be faster at it than memory can be read.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import sys
from functools import partial
from pathlib import Path

import torch

from benchmarks.figures import Figure, Measure, faster, take_turns
from benchmarks.llama_cpp_peer import NAME, LlamaCpp, prove, why_absent
from benchmarks.memory_read import MemoryRead
from benchmarks.models import MIXTRAL_1B5, prompts_of, step_bytes, write_model
from benchmarks.transformers_batch import TransformersBatch

BENCH = "peers"
TRANSFORMERS = "transformers"
LIMIT = "limit"
N_SEQUENCES = (1, 4, 8, 16, 32)
PROMPT_TOKENS = 16
DECODE_TOKENS = 4
PREFILL_TOKENS = 512
DEFAULT_ROUNDS = 2


def run(work_dir: Path, n_rounds: int) -> list[Figure]:
    """Figures for 1 to 32 sequences and for a prompt."""
    torch.set_num_threads(1)
    folder = work_dir / "model"
    write_model(MIXTRAL_1B5, folder)
    with contextlib.ExitStack() as stack:
        llama_cpp: LlamaCpp | None = None
        if (absent := why_absent()) is None:
            cosine, agreement = prove(work_dir)
            print(
                f"llama.cpp against transformers in fp32: cosine {cosine:.6f}, top-1 {agreement:.3f}", file=sys.stderr
            )
            llama_cpp = stack.enter_context(LlamaCpp(folder, work_dir))
        else:
            print(absent, file=sys.stderr)
        return asyncio.run(_measure(TransformersBatch(folder, "bf16"), llama_cpp, n_rounds))


async def _measure(transformers: TransformersBatch, llama_cpp: LlamaCpp | None, n_rounds: int) -> list[Figure]:
    memory = MemoryRead()
    read = partial(memory.tokens_per_s, step_bytes(MIXTRAL_1B5, PROMPT_TOKENS))
    figures: list[Figure] = []
    for n_sequences in N_SEQUENCES:
        prompts = prompts_of(n_sequences, PROMPT_TOKENS, MIXTRAL_1B5.vocab_size)
        contestants: dict[str, Measure] = {TRANSFORMERS: partial(transformers.decode, prompts, DECODE_TOKENS)}
        if n_sequences == 1:
            contestants[LIMIT] = read
        if llama_cpp is not None:
            contestants[NAME] = partial(llama_cpp.decode, prompts, DECODE_TOKENS)
        figures += await _race(f"decode, {n_sequences} sequences", contestants, n_rounds)
    prompt = prompts_of(1, PREFILL_TOKENS, MIXTRAL_1B5.vocab_size)[0]
    contestants = {TRANSFORMERS: partial(transformers.prefill, prompt)}
    if llama_cpp is not None:
        contestants[NAME] = partial(llama_cpp.prefill, prompt)
    return figures + await _race(f"prefill {PREFILL_TOKENS}", contestants, n_rounds)


async def _race(case: str, contestants: dict[str, Measure], n_rounds: int) -> list[Figure]:
    rounds = await take_turns(contestants, n_rounds)
    limit = rounds.pop(LIMIT, None)
    if limit is None:
        return [Figure(BENCH, case, None, "tok/s", name, statistics.median(scores)) for name, scores in rounds.items()]
    return [faster(BENCH, case, "tok/s", limit, name, scores) for name, scores in rounds.items()]
