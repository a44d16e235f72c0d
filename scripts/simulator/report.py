"""One size of swarm from its forming to its end, as a row of figures; and rows as a table and a picture."""

from __future__ import annotations

import dataclasses
import math
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from node.placement import Standing, decide
from simulator.measures import capacity, draw_links, optimum, route_cost
from simulator.population import ARGS
from simulator.world import FORMATION_S, HOUR_S, PROFILE, World
from swarm.terms import NodeId

HOURS = {10: 48.0, 100: 12.0, 1_000: 4.0, 10_000: 0.75}
"""Virtual time by size: larger swarms show as much in less of it."""

SAMPLE_S = 300.0
N_CLIENTS = 40
N_DECISIONS = 15


@dataclass(frozen=True, slots=True)
class Row:
    """covered: share of the time after the first full coverage; possible: in which the machines had room for the model.
    throughput: of the optimum. moves, look_ups: per node and hour. route: seconds per token against the best route's,
    mean of clients; slow_route: what nine in ten of them stay below. balance: (hour, throughput), hosts: (hour, hosts
    of the rarest layer), over time.
    """

    n_nodes: int
    hours: float
    first_covered_s: float
    covered: float
    possible: float
    throughput: float
    worst_throughput: float
    moves: float
    route: float
    slow_route: float
    look_ups: float
    balance: tuple[tuple[float, float], ...]
    hosts: tuple[tuple[float, int], ...]


def simulate(n_nodes: int, seed: int, hours: float | None = None) -> tuple[Row, float]:
    """-> (what happened, seconds of one decision on all facts of the end, median of N_DECISIONS: real ones, no two
    runs alike).
    """
    hours = hours or next(h for n, h in sorted(HOURS.items(), reverse=True) if n_nodes >= n or n == 10)
    world = World(n_nodes, seed)
    draw = random.Random(seed + 1)
    balance: list[tuple[float, float]] = []
    routes: list[float] = []
    while world.elapsed_s < hours * HOUR_S:
        world.run(min(hours * HOUR_S, world.elapsed_s + SAMPLE_S))
        nodes = world.serving()
        is_formed = world.elapsed_s >= max(FORMATION_S, world.counts.first_covered_s + SAMPLE_S)
        if is_formed and (best := optimum(nodes, ARGS.n_layers)) > 1e-9:
            balance.append((world.elapsed_s / HOUR_S, capacity(nodes, ARGS.n_layers) / best))
    nodes, facts = world.serving(), world.table.live()
    links_s = draw_links(nodes, draw)
    for _ in range(N_CLIENTS):
        if (cost := route_cost(nodes, facts, links_s, ARGS.n_layers, world.now_s, draw)) is not None:
            routes.append(cost)
    counts = world.counts
    node_hours = counts.node_s / HOUR_S
    since_s = hours * HOUR_S - counts.first_covered_s
    row = Row(
        n_nodes,
        hours,
        counts.first_covered_s,
        1 - counts.uncovered_s / since_s,
        1 - counts.too_small_s / since_s,
        statistics.mean(share for _, share in balance),
        min(share for _, share in balance),
        counts.n_moves / node_hours,
        statistics.mean(routes) if routes else math.nan,
        sorted(routes)[int(0.9 * len(routes))] if routes else math.nan,
        counts.n_look_ups / node_hours + 0.1 * HOUR_S / world.discovery.exchange_interval_s,
        tuple(balance),
        tuple((at_s / HOUR_S, n_hosts) for at_s, n_hosts in counts.hosts),
    )
    return row, _decision_s(world)


def timed(n_nodes: int, seed: int, hours: float | None = None) -> tuple[Row, float, float]:
    """As simulate, and how many seconds that took."""
    started_s = time.monotonic()
    row, decision_s = simulate(n_nodes, seed, hours)
    return row, decision_s, time.monotonic() - started_s


def _decision_s(world: World) -> float:
    node = world.serving()[0]
    me = Standing(NodeId("z" * 52), PROFILE, world.now_s)
    took_s = []
    for _ in range(N_DECISIONS):
        started_s = time.perf_counter()
        facts = world.table.live()
        decide(facts, node.budget, me, world.placement, n_layers=ARGS.n_layers, now_s=world.now_s)
        took_s.append(time.perf_counter() - started_s)
    return statistics.median(took_s)


COLUMNS = (
    ("nodes", "{0.n_nodes:,}"),
    ("hours", "{0.hours:g}"),
    ("whole after", "{0.first_covered_s:.0f} s"),
    ("covered", "{0.covered:.3%}"),
    ("possible", "{0.possible:.3%}"),
    ("of optimum", "{0.throughput:.1%}"),
    ("at worst", "{0.worst_throughput:.1%}"),
    ("moves/node/h", "{0.moves:.3f}"),
    ("route/best", "{0.route:.3f}"),
    ("9 in 10", "{0.slow_route:.3f}"),
    ("look-ups/node/h", "{0.look_ups:.1f}"),
)


def table(rows: Sequence[Row]) -> str:
    cells = [[head for head, _ in COLUMNS], *([shape.format(row) for _, shape in COLUMNS] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(COLUMNS))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)


def fields(row: Row) -> dict[str, object]:
    """Without the courses over time."""
    return {k: v for k, v in dataclasses.asdict(row).items() if k not in ("balance", "hosts")}


def plot(rows: Sequence[Row], picture: Path) -> None:
    """Throughput against the optimum, and hosts of the rarest layer, over time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (upper, lower) = pyplot.subplots(2, 1, figsize=(9, 7))
    for row in rows:
        upper.plot(*zip(*row.balance, strict=True), label=f"{row.n_nodes:,} nodes", linewidth=1)
        lower.step(*zip(*row.hosts, strict=True), label=f"{row.n_nodes:,} nodes", linewidth=1, where="post")
    upper.set_ylabel("throughput / optimum")
    upper.axhline(0.9, color="grey", linewidth=0.5)
    upper.legend()
    lower.set_ylabel("hosts of the rarest layer")
    lower.set_yscale("symlog", linthresh=1)
    lower.set_xlabel("hours")
    figure.tight_layout()
    figure.savefig(picture, dpi=110)
    pyplot.close(figure)
