"""Ours, its peers and the limit on one model, taking turns."""

from __future__ import annotations

import contextlib
import statistics
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.engine import Engine
from benchmarks.figures import Figure, Measure, faster, take_turns
from benchmarks.llama_cpp_peer import NAME, LlamaCpp, prove, why_absent
from benchmarks.models import MIXTRAL_1B5, write_model
from benchmarks.transformers_batch import TransformersBatch

EXACT = "exact profile"
FAST = "fast profile"
TRANSFORMERS = "transformers"
LLAMA_CPP = NAME
LIMIT = "memory read"
OURS = (EXACT, FAST)
QUANTISED = ("int8", "int4")


@dataclass(frozen=True, slots=True)
class Racers:
    """llama_cpp: None where it was not built."""

    ours: dict[str, Engine]
    transformers: TransformersBatch
    llama_cpp: LlamaCpp | None


@contextlib.contextmanager
def racers(work_dir: Path) -> Iterator[Racers]:
    """Everyone with the random Mixtral of 1.5e9 parameters, one thread each; llama.cpp proved to compute the same."""
    torch.set_num_threads(1)
    folder = work_dir / "model"
    write_model(MIXTRAL_1B5, folder)
    with contextlib.ExitStack() as stack:
        llama_cpp: LlamaCpp | None = None
        if (absent := why_absent()) is None:
            cosine, agreement = prove(work_dir)
            said = f"llama.cpp against transformers in fp32: cosine {cosine:.6f}, top-1 {agreement:.3f}"
            print(said, file=sys.stderr)
            llama_cpp = stack.enter_context(LlamaCpp(folder, work_dir))
        else:
            print(absent, file=sys.stderr)
        ours = {name: Engine(folder, is_exact=name == EXACT) for name in OURS}
        for engine in ours.values():
            stack.callback(engine.close)
        yield Racers(ours, TransformersBatch(folder, "bf16"), llama_cpp)


async def race(bench: str, case: str, unit: str, contestants: Mapping[str, Measure], n_rounds: int) -> list[Figure]:
    """One figure of each of ours against each other contestant, of exact against fast, and of quantised against fast.

    What is quantised does not race the limit, which is of bf16's bytes.
    """
    rounds = await take_turns(contestants, n_rounds)
    figures = []
    for name in OURS:
        if name not in rounds:
            continue
        for peer, scores in rounds.items():
            if peer not in (*OURS, *QUANTISED) or (name, peer) == (EXACT, FAST):
                figures.append(faster(bench, f"{case}, {name}", unit, rounds[name], peer, scores))
        if len(rounds) == 1:
            figures.append(Figure(bench, f"{case}, {name}", statistics.median(rounds[name]), unit))
    for name in QUANTISED:
        for peer in (TRANSFORMERS, FAST):
            if name in rounds and peer in rounds:
                figures.append(faster(bench, f"{case}, {name}", unit, rounds[name], peer, rounds[peer]))
    return figures
