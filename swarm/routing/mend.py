"""A route that lost hops: the others stay where they are, with what they have cached, and the gaps are planned anew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from swarm.facts import Hop, NodeFact, NodeState, Route
from swarm.routing.coverage import in_force, newest
from swarm.routing.experts import layers_served
from swarm.routing.plan import plan_route
from swarm.terms import ExpertRange, NodeId, Span


def mend_route(
    broken: Route, facts: Sequence[NodeFact], *, now_s: float, exclude: frozenset[NodeId] = frozenset(),
    rtt_s: Mapping[NodeId, float] | None = None,
) -> Route:  # fmt: skip
    """The broken route with its lost hops replaced by the best that fit into their gaps.

    A hop stays if its node is not excluded, is not draining, and says that it serves those layers there; full it may
    be, since this session is one of those that fill it. Raises: LayersUncovered, when a gap has nobody.
    """
    known = {fact.node_id: fact for fact in newest(facts)}
    alive = in_force(known.values(), broken.n_layers, now_s)
    served = layers_served(alive, alive)
    kept = [
        hop
        for hop in broken.hops
        if hop.node_id not in exclude and _serves(known.get(hop.node_id), served.get(hop.node_id, ()), hop)
    ]
    hops: list[Hop] = list(kept)
    for gap in _gaps(kept, broken.n_layers):
        within = [clipped for fact in facts if (clipped := _clip(fact, gap)).hosts_anything]
        found = plan_route(within, n_layers=len(gap), now_s=now_s, profile=broken.profile, exclude=exclude, rtt_s=rtt_s)
        hops.extend(replace(hop, span=_shift(hop.span, gap.start)) for hop in found.hops)
    return Route(tuple(sorted(hops, key=lambda hop: hop.span)), broken.profile)


def _serves(fact: NodeFact | None, served: Sequence[Span], hop: Hop) -> bool:
    return (
        fact is not None
        and fact.address == hop.address
        and fact.state is not NodeState.DRAINING
        and any(span.covers(hop.span) for span in served)
    )


def _gaps(kept: Sequence[Hop], n_layers: int) -> Iterator[Span]:
    ends = [0, *(hop.span.end for hop in kept)]
    starts = [*(hop.span.start for hop in kept), n_layers]
    yield from (Span(end, start) for end, start in zip(ends, starts, strict=True) if end < start)


def _clip(fact: NodeFact, gap: Span) -> NodeFact:
    """What the node says of the layers of the gap, as if they were the whole model."""

    def inside(spans: Sequence[Span]) -> tuple[Span, ...]:
        cut = ((max(span.start, gap.start), min(span.end, gap.end)) for span in spans)
        return tuple(Span(start - gap.start, end - gap.start) for start, end in cut if start < end)

    def experts_inside(ranges: Sequence[ExpertRange]) -> tuple[ExpertRange, ...]:
        return tuple(ExpertRange(span, one.expert_idxs) for one in ranges for span in inside((one.layers,)))

    return replace(
        fact,
        n_layers=len(gap),
        spans=inside(fact.spans),
        loaded_spans=inside(fact.loaded_spans),
        trunks=inside(fact.trunks),
        loaded_trunks=inside(fact.loaded_trunks),
        experts=experts_inside(fact.experts),
        loaded_experts=experts_inside(fact.loaded_experts),
    )


def _shift(span: Span, by: int) -> Span:
    return Span(span.start + by, span.end + by)
