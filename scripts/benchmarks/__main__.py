"""The command line of scripts/bench."""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from types import ModuleType

import click

from benchmarks.figures import show
from swarm.cli.local_swarm import interrupted_by_sigterm

BENCHES = (
    "decode",
    "prefill",
    "attention",
    "batch",
    "load",
    "stages",
    "pipeline",
    "routes",
    "parity",
    "fetch",
    "distribute",
    "gateway",
    "quality",
    "overload",
    "soak",
    "failover",
    "experts",
    "heat",
    "gpu",
)


@click.command()
@click.argument("name", type=click.Choice(BENCHES))
@click.option("--rounds", "--minutes", "n_rounds", type=click.IntRange(1), help="More take longer and are steadier.")
@click.option("--only", default="", metavar="TEXT", help="Of NAME's cases those with TEXT in their name.")
@click.option("--json", "as_json", is_flag=True, help="One object a line: bench, case, value, unit, peer, ratio, …")
@click.option("--llama-cpp", is_flag=True, help="First build llama.cpp as a peer (once, about 5 minutes).")
def main(name: str, n_rounds: int | None, only: str, as_json: bool, llama_cpp: bool) -> None:
    """Measure NAME on this machine. Ratios are turned so that higher is better.

    \b
    decode    a token at a time: an 8x7B layer and a 1.5e9 Mixtral against transformers, llama.cpp and the memory
    prefill   a prompt of 512 against transformers and llama.cpp
    batch     1 to 32 sessions side by side against transformers and llama.cpp
    attention an 8x7B layer's attention against scaled_dot_product_attention
    load      reading and packing, memory of a thousand sessions, shared prefixes
    stages    two stages against one process on a wide Mixtral, 1, 2 and 4 sequences in flight
    pipeline  one, two and three loopback nodes against one process without a network
    routes    over links of unequal length, the chosen route against all routes tried; a link that degrades
    parity    decode, prefill and logits of the same weights in one process, against transformers
    gateway   1, 8 and 32 streams through the HTTP gateway, against the Python client without it
    distribute  one seed of 20 MB/s and up to eight nodes; time to the first layer; what hashing and seeding cost
    overload  four and ten times what a node can do at once: goodput, refusals, memory, a light client beside a flood
    soak      nodes join, drain and are killed under eight streams for --minutes (10): exact answers, nothing leaks
    quality   perplexity and right answers of the embedded release in fp32, bf16, int8 and int4
    failover  generations whose nodes are killed under them: speed by failure probability, the pause after a loss
    experts   single experts in other processes at RTT 0 to 20 ms, against all here and against a split by layers
    heat      remote calls per token of the embedded release, experts placed by heat against by turns
    gpu       an 8x7B layer, a 1.5e9 Mixtral and a whole 8x7B in 8 and 4 bits on an NVIDIA GPU, against transformers
    fetch     fetched by needed per layout and piece size, at true scale and transferred; download rate against aria2c
    """
    bench = importlib.import_module(f"benchmarks.{name}")
    with interrupted_by_sigterm(), tempfile.TemporaryDirectory(prefix="swarm-bench-") as folder:
        show(bench.run(Path(folder), n_rounds or bench.DEFAULT_ROUNDS, *_chosen(bench, only)), as_json)


def _chosen(bench: ModuleType, only: str) -> list[tuple[str, ...]]:
    """What run() takes behind the rounds: the cases, in a bench that can be run case by case. Raises: UsageError."""
    cases: tuple[str, ...] = getattr(bench, "CASES", ())
    chosen = tuple(case for case in cases if only in case)
    if only and not chosen:
        raise click.UsageError(f"--only {only!r} is in none of its cases: {', '.join(cases) or 'it has but one'}")
    return [chosen] if cases else []


main()
