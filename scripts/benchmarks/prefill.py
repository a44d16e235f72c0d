"""prefill: a prompt of 512 through one stage, one thread, against transformers and llama.cpp."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

from benchmarks.figures import Figure, Measure
from benchmarks.models import MIXTRAL_1B5, prompts_of
from benchmarks.racing import LLAMA_CPP, TRANSFORMERS, Racers, race, racers

BENCH = "prefill"
PROMPT_TOKENS = 512
DEFAULT_ROUNDS = 5


def run(work_dir: Path, n_rounds: int) -> list[Figure]:
    with racers(work_dir) as everyone:
        return asyncio.run(_measure(everyone, n_rounds))


async def _measure(everyone: Racers, n_rounds: int) -> list[Figure]:
    prompt = prompts_of(1, PROMPT_TOKENS, MIXTRAL_1B5.vocab_size)[0]
    contestants: dict[str, Measure] = {name: partial(engine.prefill, prompt) for name, engine in everyone.ours.items()}
    contestants[TRANSFORMERS] = partial(everyone.transformers.prefill, prompt)
    if everyone.llama_cpp is not None:
        contestants[LLAMA_CPP] = partial(everyone.llama_cpp.prefill, prompt)
    return await race(BENCH, f"prompt of {PROMPT_TOKENS}", "tokens/s", contestants, n_rounds)
