"""The route that the most goes through: for batches, whose tokens wait for the slowest hop and not for the sum."""

from __future__ import annotations

from collections.abc import Sequence

from swarm.routing.costs import Costs
from swarm.routing.shortest import Piece
from swarm.terms import Span

_N_HALVINGS = 40


def widest(costs: Costs, spans: Sequence[Piece], n_layers: int) -> list[Piece] | None:
    """Pieces over layers [0, n_layers) whose slowest takes least, each node once; None where nodes must come twice.

    Halves the interval of the slowest piece's time; for each time asked, the farthest reach at every step. That is the
    best there is where spans are nested or alike, and near it elsewhere.
    """
    longest_ns = int(costs.layer.max(initial=1)) * n_layers + int(costs.turn.max(initial=0))
    best = _reach(costs, spans, n_layers, longest_ns)
    too_short_ns, long_enough_ns = 0, longest_ns
    for _ in range(_N_HALVINGS):
        if best is None or long_enough_ns - too_short_ns <= 1:
            break
        middle_ns = (too_short_ns + long_enough_ns) // 2
        pieces = _reach(costs, spans, n_layers, middle_ns)
        if pieces is None:
            too_short_ns = middle_ns
        else:
            best, long_enough_ns = pieces, middle_ns
    return best


def slowest_ns(costs: Costs, pieces: Sequence[Piece]) -> int:
    """What a batch's token waits for: the longest turn of a node, all its pieces together."""
    turns: dict[int, int] = {}
    for node, span in pieces:
        spent = turns.get(node, int(costs.turn[node]))
        turns[node] = spent + len(span) * int(costs.layer[node])
    return max(turns.values())


def _reach(costs: Costs, spans: Sequence[Piece], n_layers: int, limit_ns: int) -> list[Piece] | None:
    """Pieces of at most limit_ns each, or None where the farthest reach falls short."""
    able = [
        (node, span, (limit_ns - int(costs.turn[node])) // max(1, int(costs.layer[node])))
        for node, span in spans
        if limit_ns > costs.turn[node]
    ]
    used: set[int] = set()
    pieces: list[Piece] = []
    at = 0
    while at < n_layers:
        ahead = [
            (min(span.end, at + n_able, n_layers), -n_able, -node)
            for node, span, n_able in able
            if n_able > 0 and node not in used and at in span
        ]
        if not ahead:
            return None
        end, _, negated = max(ahead)
        used.add(-negated)
        pieces.append((-negated, Span(at, end)))
        at = end
    return pieces
