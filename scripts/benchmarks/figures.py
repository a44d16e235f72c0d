"""Figures: what was measured, medians over rounds, and how they are shown."""

from __future__ import annotations

import json
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.table import Table

Measure = Callable[[], Awaitable[float]]
Rounds = dict[str, list[float]]
"""What each contestant scored, round by round, by its name."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of a benchmark's answer. ratio: ours to the peer's, turned so that higher is better; None without a
    peer.
    """

    bench: str
    case: str
    value: float | None
    unit: str
    peer: str | None = None
    peer_value: float | None = None
    ratio: float | None = None


async def take_turns(contestants: Mapping[str, Measure], n_rounds: int) -> Rounds:
    """Measure each contestant once a round, after a round that does not count; every other round runs backwards.

    Short turns and many of them: then a load from outside meets all contestants alike.
    """
    rounds: Rounds = {name: [] for name in contestants}
    for round_idx in range(-1, n_rounds):
        names = list(contestants)
        for name in names if round_idx % 2 == 0 else reversed(names):
            score = await contestants[name]()
            if round_idx >= 0:
                rounds[name].append(score)
    return rounds


def faster(bench: str, case: str, unit: str, ours: Sequence[float], peer: str, peers: Sequence[float]) -> Figure:
    """A figure of which more is better. The ratio is the median of the rounds' own, since load drifts between them."""
    ratio = statistics.median(a / b for a, b in zip(ours, peers, strict=True))
    return Figure(bench, case, statistics.median(ours), unit, peer, statistics.median(peers), ratio)


def show(figures: Sequence[Figure], as_json: bool) -> None:
    """One JSON object a line, or a table."""
    if as_json:
        for figure in figures:
            print(json.dumps({k: _rounded(v) for k, v in asdict(figure).items()}), flush=True)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("case", "ours", "unit", "peer", "peer's", "ratio"):
        table.add_column(heading, justify="left" if heading in ("case", "unit", "peer") else "right", no_wrap=True)
    for figure in figures:
        table.add_row(
            figure.case, _text(figure.value), figure.unit, figure.peer or "", _text(figure.peer_value),
            _text(figure.ratio),
        )  # fmt: skip
    Console(width=140).print(table)


def _rounded(value: object) -> object:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
