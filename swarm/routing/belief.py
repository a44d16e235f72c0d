"""What to make of nodes' words: bounded by what the asker has measured itself. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from swarm.facts import NodeFact, Route
from swarm.routing.costs import Links
from swarm.routing.coverage import newest, unavailable
from swarm.routing.plan import route_cost_s
from swarm.terms import NodeId, id_tag

WORTH_MOVING = 1.1
"""How many times as long the route that was taken last may take before another is chosen: pages that it has cached are
worth something, a tenth of the speed at most."""


def links_of(facts: Sequence[NodeFact], rtt_s: Mapping[NodeId, float]) -> Links:
    """The round trips between nodes, as these state them, of each pair the longer of what its two ends say.

    rtt_s: round trips to the nodes as the asker measured them. Two of which one is far and one is near are far from
    each other; half of the difference is the least that is believed, since the internet's triangles are not exact.
    """
    by_tag = {id_tag(fact.node_id): fact.node_id for fact in facts}
    stated: dict[tuple[NodeId, NodeId], float] = {}
    for fact in facts:
        for tag, link_s in fact.rtts:
            other = by_tag.get(tag)
            if other is not None and other != fact.node_id:
                pair = (min(fact.node_id, other), max(fact.node_id, other))
                stated[pair] = max(link_s, stated.get(pair, 0.0))
    for a, b in stated:
        if a in rtt_s and b in rtt_s:
            stated[a, b] = max(stated[a, b], abs(rtt_s[a] - rtt_s[b]) / 2)
    return stated


def believe(facts: Sequence[NodeFact], layer_times_s: Mapping[NodeId, float]) -> list[NodeFact]:
    """The facts with the layer times that were seen in place of shorter ones that were only stated."""
    return [
        replace(fact, layer_time_s=max(fact.layer_time_s, layer_times_s[fact.node_id]))
        if fact.node_id in layer_times_s
        else fact
        for fact in facts
    ]


def steady(
    last: Route | None, best: Route, facts: Sequence[NodeFact], *, n_layers: int, now_s: float,
    exclude: frozenset[NodeId], rtt_s: Mapping[NodeId, float], links_s: Links,
) -> Route:  # fmt: skip
    """The route that was taken last, while its nodes take new sessions and it is not much worse than the best."""
    if last is None or last.profile != best.profile:
        return best
    known = {fact.node_id: fact for fact in newest(facts)}
    for hop in last.hops:
        fact = known.get(hop.node_id)
        if fact is None or fact.address != hop.address or not any(span.covers(hop.span) for span in fact.served_spans):
            return best
        if unavailable(fact, n_layers, now_s, last.profile, exclude) is not None:
            return best
    last_s, best_s = (route_cost_s(route, facts, rtt_s, links_s) for route in (last, best))
    return last if last_s <= WORTH_MOVING * best_s else best
