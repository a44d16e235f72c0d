"""What a hop costs by the facts: in whole nanoseconds, for equal routes to be equal whatever the order of addition."""

from __future__ import annotations

import math
import statistics
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swarm.errors import BadArgument
from swarm.facts import NodeFact, Route
from swarm.routing.experts import away_layers
from swarm.terms import NodeId, Span

HOP_OVERHEAD_S = 0.002
"""What one more hop costs per token besides the network: serialisation, a queue, two context switches. Petals measures
2.2 to 2.7 ms per loopback hop. Raising it prefers fewer, slower nodes."""

EXPERT_OVERHEAD_S = 0.002
"""What asking another node for the experts of one layer costs besides the network, before anybody measured it."""

DEFAULT_LAYER_TIME_S = 0.005
"""Seconds per token and layer of a node that has not measured yet, when no other node has either."""

FASTEST = 16.0
"""A node counts for at most so many times as fast as the median: beyond, a faster one gains little, and a liar much."""

SPREAD = 0.05
"""How much worse, as a share, a node may look to one client than to another: nodes that differ by less share the
clients."""

_LONGEST_S = 1e4  # what a node or a clock says beyond this counts as this

Links = Mapping[tuple[NodeId, NodeId], float]
"""(from, to) -> the round trip between these nodes in seconds, as one of them measured it."""


@dataclass(frozen=True, slots=True)
class Costs:
    """By a node's place in node_ids (sorted): nanoseconds per token.

    enter: to reach a node from wherever no link to it is known. turn: what entering costs besides the way. layer: for
    each layer. leave: from it back to the client. wait: for each layer whose experts are elsewhere; away: which those
    are. source, target, way: the links, to and fro, as far as they lead
    between these nodes.
    """

    node_ids: tuple[NodeId, ...]
    enter: NDArray[np.int64]
    turn: NDArray[np.int64]
    layer: NDArray[np.int64]
    leave: NDArray[np.int64]
    source: NDArray[np.int64]
    target: NDArray[np.int64]
    way: NDArray[np.int64]
    wait: NDArray[np.int64]
    away: tuple[tuple[Span, ...], ...]

    def of_layers(self, place: int, span: Span) -> int:
        """What these layers take on a node, experts elsewhere included."""
        n_away = sum(max(0, min(span.end, one.end) - max(span.start, one.start)) for one in self.away[place])
        return len(span) * int(self.layer[place]) + n_away * int(self.wait[place])

    def of_route(self, route: Route) -> int:
        """The whole route's. Raises: BadArgument for a node that is not among these."""
        places = {node_id: place for place, node_id in enumerate(self.node_ids)}
        if strangers := [hop.node_id for hop in route.hops if hop.node_id not in places]:
            raise BadArgument(f"the route leads over {strangers[0]}, of which no fact is given")
        ways = dict(zip(zip(self.source.tolist(), self.target.tolist(), strict=True), self.way.tolist(), strict=True))
        total, before = 0, -1
        for hop in route.hops:
            place = places[hop.node_id]
            way = ways.get((before, place))
            total += int(self.enter[place]) if way is None else way + int(self.turn[place])
            total += self.of_layers(place, hop.span)
            before = place
        return total + int(self.leave[before])


def costs_of(known: Sequence[NodeFact], rtt_s: Mapping[NodeId, float], links_s: Links, client: str = "") -> Costs:
    """known: one fact per node, by node id. rtt_s: round trips that the client measured. client: whose lot decides
    among nearly equal nodes; '' for nobody's.
    """
    if bad := [f"{node_id[:8]}: {rtt}" for node_id, rtt in rtt_s.items() if not rtt >= 0.0]:
        raise BadArgument(f"a round-trip time must be 0 or more seconds, not {bad[0]}")
    layer_times = [f.layer_time_s for f in known if 0.0 < f.layer_time_s < math.inf]
    usual_layer = _median(layer_times, DEFAULT_LAYER_TIME_S)
    usual_trip = _median([rtt_s[f.node_id] for f in known if f.node_id in rtt_s], 0.0)
    n = len(known)
    enter, turn, layer, leave = (np.zeros(n, dtype=np.int64) for _ in range(4))
    for place, fact in enumerate(known):
        measured = 0.0 < fact.layer_time_s < math.inf
        layer_time_s = max(fact.layer_time_s, usual_layer / FASTEST) if measured else usual_layer
        lot = 1.0 + SPREAD * (zlib.crc32(fact.node_id.encode(), zlib.crc32(client.encode())) / 2**32 if client else 0)
        leave[place] = _ns(rtt_s.get(fact.node_id, usual_trip) / 2)
        turn[place] = _ns(lot * (HOP_OVERHEAD_S + fact.queue_s))
        layer[place] = _ns(lot * layer_time_s)
        enter[place] = turn[place] + leave[place]
    wait = np.array([_ns(seconds) for seconds in _waits(known, links_s, usual_trip)], dtype=np.int64)
    away = tuple(map(away_layers, known))
    source, target, way = _ways(known, links_s)
    node_ids = tuple(f.node_id for f in known)
    return Costs(node_ids, enter, turn, layer, leave, source, target, way, wait, away)


def _waits(known: Sequence[NodeFact], links_s: Links, usual_trip: float) -> list[float]:
    """What each node waits at a layer whose experts are elsewhere: as it measured, or the round trips that are known
    from it to hosts of experts, or what others measured.
    """
    measured = {f.node_id: f.expert_wait_s for f in known if 0.0 < f.expert_wait_s < math.inf}
    usual = _median(measured.values(), EXPERT_OVERHEAD_S + usual_trip)
    hosts = {f.node_id for f in known if f.experts}
    trips: dict[NodeId, list[float]] = {}
    for (source, target), rtt_s in links_s.items():
        if target in hosts and rtt_s >= 0.0:
            trips.setdefault(source, []).append(EXPERT_OVERHEAD_S + rtt_s)
    return [measured.get(f.node_id, _median(trips.get(f.node_id, ()), usual)) for f in known]


def _ways(known: Sequence[NodeFact], links_s: Links) -> tuple[NDArray[np.int64], ...]:
    """(source, target, half of the round trip), sorted: each link both ways, as measured in that one if it was."""
    places = {fact.node_id: place for place, fact in enumerate(known)}
    n = len(known)
    source = np.array([places.get(a, -1) for a, _ in links_s], dtype=np.int64)
    target = np.array([places.get(b, -1) for _, b in links_s], dtype=np.int64)
    rtt = np.array(list(links_s.values()), dtype=np.float64)
    counts = (source >= 0) & (target >= 0) & (source != target) & (rtt >= 0.0)
    source, target = source[counts], target[counts]
    way = np.rint(np.minimum(rtt[counts], _LONGEST_S) / 2 * 1e9).astype(np.int64)
    is_new = ~np.isin(target * n + source, source * n + target)
    pairs = np.concatenate((source * n + target, (target * n + source)[is_new]))
    order = np.argsort(pairs)
    return pairs[order] // max(1, n), pairs[order] % max(1, n), np.concatenate((way, way[is_new]))[order]


def _median(values: Iterable[float], default: float) -> float:
    listed = list(values)
    return statistics.median(listed) if listed else default


def _ns(seconds: float) -> int:
    return round(min(seconds, _LONGEST_S) * 1e9)
