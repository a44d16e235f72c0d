"""The command line of scripts/simulate."""

from __future__ import annotations

import json
import os
import statistics
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import click

from simulator.report import fields, plot, table, timed


@click.command()
@click.option("--sizes", default="10,100,1000,10000", show_default=True, help="Nodes of each swarm.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--seeds", "n_seeds", type=click.IntRange(min=1), default=1, show_default=True, help="So many, from --seed on."
)
@click.option("--hours", type=click.FloatRange(min=0.5), help="Virtual hours of each; fewer for larger by default.")
@click.option("--plot", "picture", type=click.Path(path_type=Path), help="Also draw the courses over time, as PNG.")
@click.option("--json", "as_json", is_flag=True, help="One object a line.")
@click.option(
    "--check-real", is_flag=True, help="Instead, hold the model of a node against ten real ones, on loopback."
)
def main(
    sizes: str, seed: int, n_seeds: int, hours: float | None, picture: Path | None, as_json: bool, check_real: bool
) -> None:
    """Swarms of 8x7B in int8 that form themselves, in virtual time.

    \b
    whole after      from the first node's start until every layer had a host
    covered          share of the time since then in which every layer had one
    possible         the same of when the machines there had room for the model at all
    of optimum       tokens/s of all sessions together, by the placement, against any placement of the same machines
    moves/node/h     how often a node changed its layers
    route/best       seconds per token of a client's route by what it can know, against the best of all routes, mean
    9 in 10          what it is at most for nine clients in ten
    look-ups/node/h  how often a node asked the DHT
    """
    if check_real:
        from simulator.real import check

        words, holds = check()
        click.echo(words)
        raise SystemExit(0 if holds else 1)
    wanted = [(int(size), seed + number) for size in sizes.split(",") for number in range(n_seeds)]
    rows = []
    # Each swarm has a process of its own; the largest is begun first, and the others fit beside it.
    with ProcessPoolExecutor(min(len(wanted), os.cpu_count() or 1), mp_context=get_context("spawn")) as pool:
        runs = {one: pool.submit(timed, *one, hours) for one in sorted(wanted, reverse=True)}
        for size, its_seed in wanted:
            row, decision_s, took_s = runs[size, its_seed].result()
            rows.append(row)
            if as_json:
                click.echo(json.dumps({"seed": its_seed, **fields(row)}))
            words = f"simulated in {took_s:.0f} s; a decision took {1e3 * decision_s:.2g} ms"
            click.echo(f"{size:,} nodes: {words}", err=True)
    if not as_json:
        click.echo(table(rows))
    if n_seeds > 1:
        mean = statistics.mean(row.throughput for row in rows)
        click.echo(f"{n_seeds} seeds: {mean:.1%} of the optimum on average", err=as_json)
    if picture is not None:
        plot(rows, picture)


if __name__ == "__main__":
    main()
