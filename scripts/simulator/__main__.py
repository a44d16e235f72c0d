"""The command line of scripts/simulate."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from simulator.report import fields, plot, simulate, table


@click.command()
@click.option("--sizes", default="10,100,1000,10000", show_default=True, help="Nodes of each swarm.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--hours", type=click.FloatRange(min=0.5), help="Virtual hours of each; fewer for larger by default.")
@click.option("--plot", "picture", type=click.Path(path_type=Path), help="Also draw the courses over time, as PNG.")
@click.option("--json", "as_json", is_flag=True, help="One object a line.")
@click.option(
    "--check-real", is_flag=True, help="Instead, hold the model of a node against ten real ones, on loopback."
)
def main(sizes: str, seed: int, hours: float | None, picture: Path | None, as_json: bool, check_real: bool) -> None:
    """Swarms of 8x7B in int8 that form themselves, in virtual time.

    \b
    whole after      from the first node's start until every layer had a host
    covered          share of the time since then in which every layer had one
    possible         the same of when the machines there had room for the model at all
    of optimum       tokens/s of all sessions together, by the placement, against any placement of the same machines
    moves/node/h     how often a node changed its layers
    route/best       seconds per token of a client's route by what it can know, against the best of all routes
    look-ups/node/h  how often a node asked the DHT
    """
    if check_real:
        from simulator.real import check

        words, holds = check()
        click.echo(words)
        raise SystemExit(0 if holds else 1)
    rows = []
    for size in map(int, sizes.split(",")):
        started_s = time.monotonic()
        row, decision_s = simulate(size, seed, hours)
        rows.append(row)
        if as_json:
            click.echo(json.dumps(fields(row)))
        took = f"simulated in {time.monotonic() - started_s:.0f} s; a decision took {1e3 * decision_s:.2g} ms"
        click.echo(f"{size:,} nodes: {took}", err=True)
    if not as_json:
        click.echo(table(rows))
    if picture is not None:
        plot(rows, picture)


main()
