"""Which round trips are worth measuring before a route is chosen: those to nodes that might make a better one."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from swarm.facts import NodeFact
from swarm.routing.costs import DEFAULT_LAYER_TIME_S, FASTEST, HOP_OVERHEAD_S, Links
from swarm.routing.coverage import in_force, profiles_of, unavailable
from swarm.routing.experts import layers_served
from swarm.terms import NodeId, Profile, Span, merge_spans

N_GOOD = 6
"""Hosts of a layer that are measured, and better than all that are not: then nobody else is asked for its sake."""

_NEAR_SHARE = 0.1
"""An unmeasured node of which nothing is known counts as near as this share of the measured ones are."""


def worth_measuring(
    facts: Sequence[NodeFact],
    n: int,
    *,
    n_layers: int,
    now_s: float,
    rtt_s: Mapping[NodeId, float],
    links_s: Links,
    profile: Profile | None = None,
    exclude: frozenset[NodeId] = frozenset(),
    silent: frozenset[NodeId] = frozenset(),
) -> list[NodeFact]:
    """At most n nodes without a measured round trip, the most promising first; none once no layer's best lack it.

    profile and exclude: of the route that it is for, as for `plan_route`; whom that could not take is not asked.
    silent: who gave no answer before.

    A node promises what it would take per layer if it were as near as the round trips allow that are known between it
    and measured nodes, or else as near as the nearest are. It is all hope: a liar wins no more by it than being asked.
    """
    layers = _layers_taken(facts, n_layers, now_s, profile, exclude)
    known = [fact for fact in facts if fact.node_id in layers and fact.node_id not in silent]
    if len(known) <= sum(f.node_id in rtt_s for f in known):
        return []
    usual_s = statistics.median([f.layer_time_s for f in known if f.layer_time_s > 0.0] or [DEFAULT_LAYER_TIME_S])
    measured = sorted(rtt_s[f.node_id] for f in known if f.node_id in rtt_s)
    near_s = measured[int(_NEAR_SHARE * len(measured))] if measured else 0.0
    hoped_s = _by_triangles(rtt_s, links_s)
    promises: list[tuple[float, NodeId, NodeFact]] = []
    for fact in known:
        trip_s = rtt_s.get(fact.node_id)
        if trip_s is None:
            trip_s = hoped_s.get(fact.node_id, near_s)
        layer_s = max(fact.layer_time_s, usual_s / FASTEST) if fact.layer_time_s > 0.0 else usual_s
        layer_s += fact.expert_wait_s if fact.trunks else 0.0
        longest = max(map(len, layers[fact.node_id]))
        promises.append((layer_s + (HOP_OVERHEAD_S + fact.queue_s + trip_s / 2) / longest, fact.node_id, fact))
    promises.sort(key=lambda promise: promise[:2])
    n_better = [0] * n_layers
    chosen: list[NodeFact] = []
    for _, node_id, fact in promises:
        lacking = [layer_idx for span in layers[node_id] for layer_idx in span if n_better[layer_idx] < N_GOOD]
        for layer_idx in lacking:
            n_better[layer_idx] += 1
        if lacking and node_id not in rtt_s:
            chosen.append(fact)
            if len(chosen) == n:
                break
    return chosen


def _layers_taken(
    facts: Sequence[NodeFact], n_layers: int, now_s: float, profile: Profile | None, exclude: frozenset[NodeId]
) -> dict[NodeId, tuple[Span, ...]]:
    """What a route could take, of the nodes that it could take at all.

    Where any profile will do, that is one in which the model is whole; a quantised one only where no other is.
    """
    free = [fact for fact in facts if unavailable(fact, n_layers, now_s, profile, exclude) is None]
    layers = {n: spans for n, spans in layers_served(free, in_force(facts, n_layers, now_s)).items() if spans}
    if profile is not None:
        return layers
    profiles = {fact.node_id: fact.profile for fact in free}
    candidates = profiles_of(free)

    def is_whole(candidate: Profile) -> bool:
        there = {span for n, spans in layers.items() if profiles[n].satisfies(candidate) for span in spans}
        return sum(map(len, merge_spans(list(there)))) == n_layers

    whole = list(filter(is_whole, candidates))
    takes = [candidate for candidate in whole if not candidate.quantisation] or whole or candidates
    return {n: spans for n, spans in layers.items() if any(map(profiles[n].satisfies, takes))}


def _by_triangles(rtt_s: Mapping[NodeId, float], links_s: Links) -> dict[NodeId, float]:
    """How far, at most, each node is that has a link to a measured one."""
    hoped: dict[NodeId, float] = {}
    for (a, b), link_s in links_s.items():
        for here, there in ((a, b), (b, a)):
            if here in rtt_s and there not in rtt_s:
                hoped[there] = min(rtt_s[here] + link_s, hoped.get(there, math.inf))
    return hoped
