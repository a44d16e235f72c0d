"""The shortest path over (layer, node)."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from swarm.errors import BadArgument, LayersUncovered
from swarm.facts import Hop, NodeFact, Route
from swarm.routing.coverage import describe_gap, in_force, newest, profiles_of, unavailable
from swarm.routing.experts import away_layers, layers_served
from swarm.terms import NodeId, Profile, Span

HOP_OVERHEAD_S = 0.002
"""What one more hop costs per token besides the network: serialisation, a queue, two context switches. Petals measures
2.2 to 2.7 ms per loopback hop. Raising it prefers fewer, slower nodes."""

DEFAULT_LAYER_TIME_S = 0.005
"""Seconds per token and layer of a node that has not measured yet, when no other node has either."""

EXPERT_OVERHEAD_S = 0.002
"""What asking another node for the experts of one layer costs besides the network, before anybody measured it."""

_LONGEST_S = 1e4  # what a node or a clock says beyond this counts as this

_Key = tuple[int, int, tuple[tuple[NodeId, int], ...]]
"""What a (partial) path is compared by: nanoseconds, hops, and (node id, first layer) of each hop."""


@dataclass(frozen=True, slots=True)
class _Costs:
    """Nanoseconds per token, whole ones, so that equal routes compare equal whatever the order of addition."""

    enter: Mapping[NodeId, int]  # to reach a node from the hop before it, or from the client
    layer: Mapping[NodeId, int]  # for each layer on it
    wait: Mapping[NodeId, int]  # for each layer on it whose experts are elsewhere
    away: Mapping[NodeId, tuple[Span, ...]]  # which layers those are
    leave: Mapping[NodeId, int]  # from it back to the client

    def compute(self, node_id: NodeId, span: Span) -> int:
        """What these layers take on a node, experts elsewhere included."""
        n_away = sum(max(0, min(span.end, away.end) - max(span.start, away.start)) for away in self.away[node_id])
        return len(span) * self.layer[node_id] + n_away * self.wait[node_id]


def plan_route(
    facts: Sequence[NodeFact],
    *,
    n_layers: int,
    now_s: float,
    profile: Profile | None = None,
    exclude: frozenset[NodeId] = frozenset(),
    rtt_s: Mapping[NodeId, float] | None = None,
) -> Route:
    """The route of least estimated time per token among nodes that serve, are not full and are of one profile.

    A hop costs HOP_OVERHEAD_S, half its node's round trip, and its layers' times; the last one also the way back. The
    round trip that the client measured to a node stands in for the one from the hop before it. What is not measured
    counts as the median of what is. A layer whose experts are elsewhere costs a round trip more: what its node
    measured, or the usual one. A hop may use a part of a node's span. Of equal routes: fewer hops, then the smaller
    node ids.
    profile: None takes the profile whose best route is the fastest (ties: by name), where one that cannot promise the
    same tokens after a loss counts as half as slow again, and quantised ones come last: a client gets the release as it
    was published wherever it can. Nodes of different exact profiles make up a route of the profile without its promise.
    Raises: LayersUncovered, naming the layers of the profile that lacks the fewest, and why other hosts do not count.
    """
    if n_layers < 1:
        raise BadArgument(f"a model of {n_layers} layers has no route")
    known = newest(facts)
    alive = in_force(known, n_layers, now_s)
    costs = _costs(known, rtt_s or {})
    profiles: Sequence[Profile | None] = [profile] if profile else profiles_of(known)
    found: list[tuple[tuple[bool, int, str], Route]] = []
    gaps: list[tuple[tuple[int, ...], dict[NodeId, str]]] = []
    for candidate in profiles or [None]:
        reasons = {f.node_id: unavailable(f, n_layers, now_s, candidate, exclude) for f in known}
        usable = [f for f in known if reasons[f.node_id] is None]
        layers = layers_served(usable, alive)
        missing = tuple(i for i in range(n_layers) if not any(i in span for spans in layers.values() for span in spans))
        if missing:
            gaps.append((missing, {node_id: reason for node_id, reason in reasons.items() if reason is not None}))
        else:
            assert candidate is not None
            route = Route(_shortest(usable, layers, n_layers, costs), candidate)
            weight = 2 if candidate.is_chunk_invariant else 3
            rank = (bool(candidate.quantisation), weight * _cost_ns(route, costs), str(candidate))
            found.append((rank, route))
    if found:
        return min(found, key=lambda entry: entry[0])[1]
    missing, reasons_of_gap = min(gaps, key=lambda gap: len(gap[0]))
    raise LayersUncovered(describe_gap(missing, known, reasons_of_gap, n_layers, now_s), missing)


def route_cost_s(route: Route, facts: Sequence[NodeFact], rtt_s: Mapping[NodeId, float] | None = None) -> float:
    """The estimate that `plan_route` minimises, for the same facts: seconds per decoded token along this route.

    Raises: BadArgument for a route over a node that the facts do not name.
    """
    return _cost_ns(route, _costs(newest(facts), rtt_s or {})) / 1e9


def _cost_ns(route: Route, costs: _Costs) -> int:
    if strangers := [hop.node_id for hop in route.hops if hop.node_id not in costs.enter]:
        raise BadArgument(f"the route leads over {strangers[0]}, of which no fact is given")
    hops_ns = sum(costs.enter[hop.node_id] + costs.compute(hop.node_id, hop.span) for hop in route.hops)
    return hops_ns + costs.leave[route.hops[-1].node_id]


def _costs(known: Sequence[NodeFact], rtt_s: Mapping[NodeId, float]) -> _Costs:
    if bad := [f"{node_id[:8]}: {rtt}" for node_id, rtt in rtt_s.items() if not rtt >= 0.0]:
        raise BadArgument(f"a round-trip time must be 0 or more seconds, not {bad[0]}")
    layer_times = {f.node_id: f.layer_time_s for f in known if 0.0 < f.layer_time_s < math.inf}
    round_trips = {f.node_id: rtt_s[f.node_id] for f in known if f.node_id in rtt_s}
    usual_layer = _median(layer_times.values(), DEFAULT_LAYER_TIME_S)
    usual_trip = _median(round_trips.values(), 0.0)
    layer = {f.node_id: _ns(layer_times.get(f.node_id, usual_layer)) for f in known}
    leave = {f.node_id: _ns(round_trips.get(f.node_id, usual_trip) / 2) for f in known}
    waits = {f.node_id: f.expert_wait_s for f in known if 0.0 < f.expert_wait_s < math.inf}
    usual_wait = _median(waits.values(), EXPERT_OVERHEAD_S + usual_trip)
    wait = {f.node_id: _ns(waits.get(f.node_id, usual_wait)) for f in known}
    away = {f.node_id: away_layers(f) for f in known}
    enter = {node_id: _ns(HOP_OVERHEAD_S) + ns for node_id, ns in leave.items()}
    return _Costs(enter, layer, wait, away, leave)


def _median(values: Iterable[float], default: float) -> float:
    listed = list(values)
    return statistics.median(listed) if listed else default


def _ns(seconds: float) -> int:
    return round(min(seconds, _LONGEST_S) * 1e9)


def _shortest(
    usable: Sequence[NodeFact], layers: Mapping[NodeId, tuple[Span, ...]], n_layers: int, costs: _Costs
) -> tuple[Hop, ...]:
    """The cheapest hops over layers [0, n_layers), every one of which some usable node has (`layers`).

    Walks the layers upwards from cut to cut, keeping the best path that is `on` each node. Cuts are needed only where
    a span begins or ends, or its experts begin to be elsewhere: in between a hop's cost is linear in its length, so
    that shifting a cut never helps.
    Takes time proportional to nodes * cuts.
    """
    addresses = {fact.node_id: fact.address for fact in usable}
    spans = [(fact.node_id, span) for fact in usable for span in layers[fact.node_id]]
    edges = [*(span for _, span in spans), *(span for fact in usable for span in costs.away[fact.node_id])]
    cuts = sorted({0, n_layers} | {edge for span in edges for edge in (span.start, span.end)})
    best: _Key = (0, 0, ())
    on: dict[NodeId, _Key] = {}
    for start, end in itertools.pairwise(cuts):
        hosts = [node_id for node_id, span in spans if span.start <= start and end <= span.end]
        came_from, on = on, {}
        for node_id in hosts:
            cost_ns, n_hops, path = best
            entered = (cost_ns + costs.enter[node_id], n_hops + 1, (*path, (node_id, start)))
            cost_ns, n_hops, path = min(entered, came_from.get(node_id, entered))
            on[node_id] = (cost_ns + costs.compute(node_id, Span(start, end)), n_hops, path)
        best = min(on.values())
    path = min((cost_ns + costs.leave[node_id], n, path) for node_id, (cost_ns, n, path) in on.items())[2]
    ends = [start for _, start in path[1:]] + [n_layers]
    return tuple(Hop(i, addresses[i], Span(start, end)) for (i, start), end in zip(path, ends, strict=True))
