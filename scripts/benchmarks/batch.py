"""batch: 1 to 32 sessions that decode side by side through one stage, one thread, against transformers' batches and
llama.cpp's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.figures import Figure, Measure
from benchmarks.models import MIXTRAL_1B5, prompts_of
from benchmarks.racing import LLAMA_CPP, TRANSFORMERS, Racers, race, racers

BENCH = "batch"
N_SESSIONS = (1, 4, 8, 16, 32)
PROMPT_TOKENS = 16
DECODE_TOKENS = 4
DEFAULT_ROUNDS = 5
CASES = tuple(f"{n_sessions} session{'s' if n_sessions > 1 else ''}" for n_sessions in N_SESSIONS)


def run(work_dir: Path, n_rounds: int, cases: Sequence[str]) -> list[Figure]:
    with racers(work_dir) as everyone:
        return asyncio.run(_measure(everyone, n_rounds, cases))


async def _measure(everyone: Racers, n_rounds: int, cases: Sequence[str]) -> list[Figure]:
    figures: list[Figure] = []
    for case, n_sessions in zip(CASES, N_SESSIONS, strict=True):
        if case not in cases:
            continue
        prompts = prompts_of(n_sessions, PROMPT_TOKENS, MIXTRAL_1B5.vocab_size)
        contestants: dict[str, Measure] = {
            name: partial(engine.decode, prompts, DECODE_TOKENS) for name, engine in everyone.ours.items()
        }
        contestants[TRANSFORMERS] = partial(everyone.transformers.decode, prompts, DECODE_TOKENS)
        if everyone.llama_cpp is not None:
            contestants[LLAMA_CPP] = partial(everyone.llama_cpp.decode, prompts, DECODE_TOKENS)
        figures += await race(BENCH, case, "tokens/s", contestants, n_rounds)
    return figures
