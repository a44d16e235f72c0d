"""The other nodes' facts, added up by layer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node.placement.values import Standing
from swarm.facts import NodeFact, NodeState
from swarm.routing import DEFAULT_LAYER_TIME_S, layers_served
from swarm.terms import NodeId, Span, merge_spans, subtract_spans

MOST_OF_USUAL = 16.0
"""A node counts for at most so many times the median machine: who claims more is made redundant sooner, or lies."""


CLAIM_S = 20 * 60.0
"""For how long a claim counts of which nothing has come yet. More bears with slower starts, and keeps others away from
a hole for longer when nobody comes."""

SLOWEST_S = 12 * 3600.0
"""In how long all of a claim must come: one that falls behind that counts no longer."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What the others make up, per layer, each (n_layers,): hosts and those about to be, hosts that serve it now and
    stay, and tokens per second.
    """

    hosts: NDArray[np.int64]
    serving: NDArray[np.int64]
    supply: NDArray[np.float64]

    @property
    def n_layers(self) -> int:
        return len(self.hosts)

    @property
    def holes(self) -> NDArray[np.bool_]:
        return self.hosts == 0


def survey(
    facts: Sequence[NodeFact], n_layers: int, now_s: float, me: Standing, usual_speed: float | None = None
) -> Survey:
    """Add up the facts in force of the other nodes whose layers a session of my profile could use.

    A trunk counts as a layer where all of its experts have hosts.
    Layers that are only claimed count where the claim is older than mine, and still believable; layers that are about
    to be given up count where the giving up is younger, for then it yields to mine. A node's word on its speed counts
    up to a bound. usual_speed: layers per second of the median node, where these are not all the facts there are.
    Takes time proportional to the facts.
    """
    counted = _count(facts, n_layers, now_s, me)
    hosts, serving = _Layers(n_layers), _Layers(n_layers)
    usual = usual_speed or median_speed(fact for fact, _, _ in counted)
    supply = _Layers(n_layers)
    for fact, hosted, served in counted:
        n_hosted = sum(span.end - span.start for span in (*fact.spans, *fact.trunks))
        speed = 1.0 / fact.layer_time_s if 0.0 < fact.layer_time_s < math.inf else usual
        tokens_per_s = min(speed, MOST_OF_USUAL * usual) / n_hosted
        if fact.throughput:
            tokens_per_s = min(tokens_per_s, fact.throughput)
        hosts.add(hosted, 1.0)
        serving.add(served, 1.0)
        supply.add(hosted, tokens_per_s)
    return Survey(hosts.counts(), serving.counts(), supply.sums())


def median_speed(facts: Iterable[NodeFact]) -> float:
    """Layers per second of the nodes that have measured."""
    speeds = [1.0 / fact.layer_time_s for fact in facts if 0.0 < fact.layer_time_s < math.inf]
    return float(np.median(speeds)) if speeds else 1.0 / DEFAULT_LAYER_TIME_S


def _count(
    facts: Sequence[NodeFact], n_layers: int, now_s: float, me: Standing
) -> list[tuple[NodeFact, Sequence[Span], Sequence[Span]]]:
    """(fact, layers that it hosts or will, layers that it serves and keeps) of each node that counts at all."""
    newest: dict[NodeId, NodeFact] = {}
    for fact in facts:
        known = newest.get(fact.node_id)
        if known is None or (known.seq, known.issued_at_s) < (fact.seq, fact.issued_at_s):
            newest[fact.node_id] = fact
    newest.pop(me.node_id, None)
    dtype, quantisation = me.profile.dtype, me.profile.quantisation
    mine = (me.placed_at_s, me.node_id)
    by_parts = _whole_by_parts(newest.values(), n_layers, now_s)
    counted: list[tuple[NodeFact, Sequence[Span], Sequence[Span]]] = []
    for fact in newest.values():
        if (
            fact.n_layers != n_layers
            or not (fact.spans or fact.node_id in by_parts)
            or now_s >= fact.issued_at_s + fact.ttl_s
            or fact.state in (NodeState.DRAINING, NodeState.LEFT)
            or fact.profile.dtype != dtype
            or fact.profile.quantisation != quantisation
        ):
            continue
        served: Sequence[Span] = fact.spans if fact.state is NodeState.SERVING else fact.loaded_spans
        is_before = (fact.placed_at_s, fact.node_id) < mine
        hosted = fact.spans if is_before and is_believable(fact, now_s) else served
        if fact.leaving_spans and is_before:
            hosted, served = subtract_spans(hosted, fact.leaving_spans), subtract_spans(served, fact.leaving_spans)
        if parts := by_parts.get(fact.node_id):
            hosted, served = merge_spans((*hosted, *parts)), merge_spans((*served, *parts))
        counted.append((fact, hosted, served))
    return counted


def _whole_by_parts(facts: Iterable[NodeFact], n_layers: int, now_s: float) -> dict[NodeId, tuple[Span, ...]]:
    """For each node with trunks the layers that sessions can have there: all of their experts have hosts."""
    known = [fact for fact in facts if fact.n_layers == n_layers and now_s < fact.issued_at_s + fact.ttl_s]
    with_trunks = [fact for fact in known if fact.served_trunks]
    return {node_id: layers for node_id, layers in layers_served(with_trunks, known).items() if layers}


def is_believable(fact: NodeFact, now_s: float) -> bool:
    """Whether what it claims may still come to be served. An owner's choice has no time from which to count."""
    share = (fact.found_bytes + fact.fetched_bytes) / fact.needed_bytes if fact.needed_bytes else 0.0
    return not fact.placed_at_s or now_s < fact.placed_at_s + CLAIM_S + min(1.0, share) * SLOWEST_S


class _Layers:
    """Sums over layers of what whole spans add: kept as differences at the spans' edges."""

    def __init__(self, n_layers: int) -> None:
        self._edges = [0.0] * (n_layers + 1)

    def add(self, spans: Iterable[Span], weight: float) -> None:
        for span in spans:
            self._edges[span.start] += weight
            self._edges[span.end] -= weight

    def sums(self) -> NDArray[np.float64]:
        sums = np.cumsum(self._edges[:-1])
        return np.maximum(sums, 0.0)

    def counts(self) -> NDArray[np.int64]:
        return np.rint(self.sums()).astype(np.int64)
