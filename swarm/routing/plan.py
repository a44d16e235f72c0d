"""Facts -> Route: of one profile, over nodes that can take a session, and the fastest or the widest of these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from swarm.errors import BadArgument, LayersUncovered
from swarm.facts import Hop, NodeFact, Route
from swarm.routing.costs import Costs, Links, costs_of
from swarm.routing.coverage import describe_gap, in_force, newest, profiles_of, unavailable
from swarm.routing.experts import layers_served
from swarm.routing.shortest import Piece, shortest
from swarm.routing.widest import slowest_ns, widest
from swarm.terms import NodeId, Profile, merge_spans


def plan_route(
    facts: Sequence[NodeFact],
    *,
    n_layers: int,
    now_s: float,
    profile: Profile | None = None,
    exclude: frozenset[NodeId] = frozenset(),
    rtt_s: Mapping[NodeId, float] | None = None,
    links_s: Links | None = None,
    client: str = "",
    for_batches: bool = False,
) -> Route:
    """The route of least estimated time per token among nodes that serve, are not full and are of one profile.

    A hop costs HOP_OVERHEAD_S, what tokens lately waited at its node, half the round trip to it, and its layers' times;
    the last one also the way back. links_s: round trips between nodes; for a pair without one the round trip that the
    client measured stands in. What is not measured counts as the median of what is. A hop may use a part of a node's
    span. A layer whose experts are elsewhere costs a round trip more: what its node measured, or the usual one.
    Of equal routes: fewer hops, then, from the last hop on, the smaller node ids.
    client: who asks; nodes that differ by less than SPREAD look different to each client, so that many of them share
    such nodes. for_batches: the route whose slowest node takes least instead, for tokens that are many at once.
    profile: None takes the profile whose best route is the fastest (ties: by name), where one that cannot promise the
    same tokens after a loss counts as half as slow again, and quantised ones come last: a client gets the release as it
    was published wherever it can. Nodes of different exact profiles make up a route of the profile without its promise.
    Raises: LayersUncovered, naming the layers of the profile that lacks the fewest, and why other hosts do not count.
    """
    if n_layers < 1:
        raise BadArgument(f"a model of {n_layers} layers has no route")
    known = newest(facts)
    costs = costs_of(known, rtt_s or {}, links_s or {}, client)
    free = [fact for fact in known if unavailable(fact, n_layers, now_s, None, exclude) is None]
    layers = layers_served(free, in_force(known, n_layers, now_s))
    usable = [(place, fact, layers[fact.node_id]) for place, fact in enumerate(known) if fact.node_id in layers]
    found: list[tuple[tuple[bool, int, str], Route]] = []
    gaps: list[tuple[tuple[int, ...], Profile | None]] = []
    candidates: list[Profile | None] = [profile] if profile else [*profiles_of(known)]
    for candidate in candidates or [None]:
        takes = {other: candidate is None or other.satisfies(candidate) for other in {f.profile for _, f, _ in usable}}
        spans = [(place, span) for place, fact, hosted in usable if takes[fact.profile] for span in hosted]
        if missing := _uncovered(spans, n_layers):
            gaps.append((missing, candidate))
            continue
        assert candidate is not None
        pieces, cost_ns = _pieces(costs, spans, n_layers, for_batches)
        hops = tuple(Hop(known[place].node_id, known[place].address, span) for place, span in pieces)
        weight = 2 if candidate.is_chunk_invariant else 3
        found.append(((bool(candidate.quantisation), weight * cost_ns, str(candidate)), Route(hops, candidate)))
    if found:
        return min(found, key=lambda entry: entry[0])[1]
    missing, wanted = min(gaps, key=lambda gap: len(gap[0]))
    why = {f.node_id: unavailable(f, n_layers, now_s, wanted, exclude) for f in known}
    reasons = {node_id: reason for node_id, reason in why.items() if reason is not None}
    raise LayersUncovered(describe_gap(missing, known, reasons, n_layers, now_s), missing)


def route_cost_s(
    route: Route,
    facts: Sequence[NodeFact],
    rtt_s: Mapping[NodeId, float] | None = None,
    links_s: Links | None = None,
) -> float:
    """The estimate that `plan_route` minimises, for the same facts: seconds per decoded token along this route.

    Raises: BadArgument for a route over a node that the facts do not name.
    """
    return costs_of(newest(facts), rtt_s or {}, links_s or {}).of_route(route) / 1e9


def _pieces(costs: Costs, spans: Sequence[Piece], n_layers: int, for_batches: bool) -> tuple[list[Piece], int]:
    """The route's pieces, and what they are compared by."""
    pieces, cost_ns = shortest(costs, spans, n_layers)
    if not for_batches:
        return pieces, cost_ns
    wide = widest(costs, spans, n_layers) or pieces
    best = min(pieces, wide, key=lambda candidate: slowest_ns(costs, candidate))
    return best, slowest_ns(costs, best)


def _uncovered(spans: Sequence[Piece], n_layers: int) -> tuple[int, ...]:
    covered = merge_spans(list({span for _, span in spans}))
    return tuple(idx for idx in range(n_layers) if not any(idx in span for span in covered))
