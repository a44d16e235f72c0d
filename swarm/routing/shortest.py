"""The path of least time per token over (layer, node)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from swarm.routing.costs import Costs
from swarm.terms import Span

Piece = tuple[int, Span]
"""A node's place in the costs, and the layers that it computes."""

_NOT = np.iinfo(np.int64).max
_CONTINUES, _FROM_CLIENT = -1, -2
_HOP = 1  # what a hop adds to a key
_KEY = 256  # a key is nanoseconds * _KEY + hops: of equal times the fewer hops are less


def shortest(costs: Costs, spans: Sequence[Piece], n_layers: int) -> tuple[list[Piece], int]:
    """The cheapest pieces over layers [0, n_layers), every one of which some span holds -> (pieces, nanoseconds).

    spans: what each usable node hosts, merged. Of equal times the fewer hops; then, from the last hop on, the smaller
    places.

    Walks the layers upwards from cut to cut, keeping the best path that is on each node. Cuts are needed only where
    a span begins or ends, or its experts begin to be elsewhere: in between a hop's cost is linear in its length, so
    that shifting a cut never helps.
    Takes time proportional to cuts * (nodes + links), most of it in numpy.
    """
    hosting = {node for node, _ in spans}
    away = [(node, span) for node in sorted(hosting) for span in costs.away[node]]
    cuts = sorted({0, n_layers} | {edge for _, span in (*spans, *away) for edge in (span.start, span.end)})
    nodes = np.array([node for node, _ in spans], dtype=np.int64)
    starts = np.array([span.start for _, span in spans], dtype=np.int64)
    ends = np.array([span.end for _, span in spans], dtype=np.int64)
    links = _Links(costs)
    on = np.full(len(costs.node_ids), _NOT, dtype=np.int64)
    origins: list[NDArray[np.int64]] = []
    for start, end in itertools.pairwise(cuts):
        hosts = nodes[(starts <= start) & (end <= ends)]
        came = np.full_like(on, _NOT)
        origin = np.full_like(on, _FROM_CLIENT)
        if start == 0:
            came[hosts] = costs.enter[hosts] * _KEY + _HOP
        else:
            links.enter(on, hosts, came, origin)
            stays = hosts[on[hosts] <= came[hosts]]
            came[stays], origin[stays] = on[stays], _CONTINUES
        came[hosts] += (end - start) * _KEY * costs.layer[hosts]
        waiting = [node for node, span in away if span.start <= start and end <= span.end and came[node] != _NOT]
        came[waiting] += (end - start) * _KEY * costs.wait[waiting]
        on = came
        origins.append(origin)
    done = np.where(on == _NOT, _NOT, on + costs.leave * _KEY * (on != _NOT))
    last = int(np.argmin(done))
    return _walk_back(last, cuts, origins), int(done[last]) // _KEY


def _walk_back(node: int, cuts: Sequence[int], origins: Sequence[NDArray[np.int64]]) -> list[Piece]:
    pieces: list[Piece] = []
    end = cuts[-1]
    for start, origin in zip(reversed(cuts[:-1]), reversed(origins), strict=True):
        came_from = int(origin[node])
        if came_from != _CONTINUES:
            pieces.append((node, Span(start, end)))
            node, end = came_from, start
    return pieces[::-1]


class _Links:
    """Steps from node to node: over a link where one is known, else at the target's usual price."""

    def __init__(self, costs: Costs) -> None:
        self._costs = costs
        self._pairs = costs.source * len(costs.node_ids) + costs.target  # sorted

    def _targets_of(self, node: int) -> set[int]:
        first, end = np.searchsorted(self._costs.source, [node, node + 1])
        return set(self._costs.target[first:end].tolist())

    def _is_linked(self, source: int, target: int) -> bool:
        pair = source * len(self._costs.node_ids) + target
        at = int(np.searchsorted(self._pairs, pair))
        return at < len(self._pairs) and self._pairs[at] == pair

    def enter(
        self, on: NDArray[np.int64], hosts: NDArray[np.int64], came: NDArray[np.int64], origin: NDArray[np.int64]
    ) -> None:
        """The best way from the nodes that are on to each of hosts, into came and origin."""
        costs = self._costs
        best = int(np.argmin(on))
        came[hosts] = on[best] + costs.enter[hosts] * _KEY + _HOP
        origin[hosts] = best
        if linked := self._targets_of(best):
            in_order = np.flatnonzero(on != _NOT)
            in_order = in_order[np.argsort(on[in_order], kind="stable")]
            for host in linked.intersection(hosts.tolist()):
                unlinked = (int(a) for a in in_order if not self._is_linked(int(a), host))
                origin[host] = nearest = next(unlinked, best)
                came[host] = on[nearest] + costs.enter[host] * _KEY + _HOP
                if nearest == best:  # all of them have links, and one of these is taken below
                    came[host] = _NOT
        is_host = np.zeros(len(on), dtype=np.bool_)
        is_host[hosts] = True
        usable = np.flatnonzero((on[costs.source] != _NOT) & is_host[costs.target])
        if not len(usable):
            return
        sources, targets = costs.source[usable], costs.target[usable]
        keys = on[sources] + (costs.way[usable] + costs.turn[targets]) * _KEY + _HOP
        order = np.lexsort((sources, keys, targets))
        targets, keys, sources = targets[order], keys[order], sources[order]
        firsts = np.flatnonzero(np.append(True, targets[1:] != targets[:-1]))
        better = firsts[keys[firsts] < came[targets[firsts]]]
        came[targets[better]], origin[targets[better]] = keys[better], sources[better]
