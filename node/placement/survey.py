"""The other nodes' facts, added up by layer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node.placement.flow import Work
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


_LEAVING = (NodeState.DRAINING, NodeState.LEFT)


@dataclass(frozen=True, slots=True)
class Survey:
    """What the others make up, per layer, each (n_layers,): hosts and those about to be, hosts that serve it now and
    stay, and tokens per second. work: (n_layers + 1, n_layers + 1), layers per second of those who host just that span.
    """

    hosts: NDArray[np.int64]
    serving: NDArray[np.int64]
    supply: NDArray[np.float64]
    work: Work

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
    newest = _newest(facts)
    by_parts = _whole_by_parts(newest, n_layers, now_s)
    dtype, quantisation = me.profile.dtype, me.profile.quantisation
    my_claim = (me.placed_at_s, me.node_id)
    counted: list[tuple[NodeFact, Sequence[Span], Sequence[Span]]] = []
    for fact in newest:
        profile = fact.profile
        if (
            not (fact.spans or fact.node_id in by_parts)
            or now_s >= fact.issued_at_s + fact.ttl_s
            or fact.n_layers != n_layers
            or fact.state in _LEAVING
            or profile.dtype != dtype
            or profile.quantisation != quantisation
            or fact.node_id == me.node_id
        ):
            continue
        if fact.state is NodeState.SERVING and not fact.leaving_spans and not by_parts:
            counted.append((fact, fact.spans, fact.spans))
        else:
            counted.append((fact, *_hosted_and_served(fact, my_claim, now_s, by_parts.get(fact.node_id, ()))))
    usual = usual_speed or median_speed(fact for fact, _, _ in counted)
    return _add_up(counted, n_layers, usual)


def _add_up(counted: Sequence[tuple[NodeFact, Sequence[Span], Sequence[Span]]], n_layers: int, usual: float) -> Survey:
    """Kept as differences at the spans' edges until the end: a fact takes the same time however many layers it has."""
    hosts, serving, supply = ([0.0] * (n_layers + 1) for _ in range(3))
    work: dict[tuple[int, int], float] = {}
    most = MOST_OF_USUAL * usual
    for fact, hosted, served in counted:
        layer_time_s, throughput = fact.layer_time_s, fact.throughput
        n_hosted = 0
        for span in fact.spans:
            n_hosted += span.end - span.start
        for span in fact.trunks:
            n_hosted += span.end - span.start
        speed = 1.0 / layer_time_s if 0.0 < layer_time_s < math.inf else usual
        tokens_per_s = (speed if speed < most else most) / n_hosted
        if 0.0 < throughput < tokens_per_s:
            tokens_per_s = throughput
        for span in hosted:
            start, end = span.start, span.end
            hosts[start] += 1.0
            hosts[end] -= 1.0
            supply[start] += tokens_per_s
            supply[end] -= tokens_per_s
            work[start, end] = work.get((start, end), 0.0) + tokens_per_s * (end - start)
        for span in served:
            serving[span.start] += 1.0
            serving[span.end] -= 1.0
    by_span = np.zeros((n_layers + 1, n_layers + 1))
    for span_edges, speed in work.items():
        by_span[span_edges] = speed
    return Survey(_counts(hosts), _counts(serving), np.maximum(np.cumsum(supply[:-1]), 0.0), by_span)


def _counts(edges: Sequence[float]) -> NDArray[np.int64]:
    return np.rint(np.cumsum(edges[:-1])).astype(np.int64)


def median_speed(facts: Iterable[NodeFact]) -> float:
    """Layers per second of the nodes that have measured."""
    speeds = [1.0 / fact.layer_time_s for fact in facts if 0.0 < fact.layer_time_s < math.inf]
    return float(np.median(speeds)) if speeds else 1.0 / DEFAULT_LAYER_TIME_S


def _newest(facts: Sequence[NodeFact]) -> Sequence[NodeFact]:
    """One fact per node. A table's facts are that already."""
    if len({fact.node_id for fact in facts}) == len(facts):
        return facts
    newest: dict[NodeId, NodeFact] = {}
    for fact in facts:
        known = newest.get(fact.node_id)
        if known is None or (known.seq, known.issued_at_s) < (fact.seq, fact.issued_at_s):
            newest[fact.node_id] = fact
    return [*newest.values()]


def _hosted_and_served(
    fact: NodeFact, my_claim: tuple[float, NodeId], now_s: float, parts: tuple[Span, ...]
) -> tuple[Sequence[Span], Sequence[Span]]:
    """The layers that a node hosts or will, and those that it serves and keeps, as who made my_claim should count."""
    served: Sequence[Span] = fact.spans if fact.state is NodeState.SERVING else fact.loaded_spans
    is_before = (fact.placed_at_s, fact.node_id) < my_claim
    hosted = fact.spans if is_before and is_believable(fact, now_s) else served
    if fact.leaving_spans and is_before:
        hosted, served = subtract_spans(hosted, fact.leaving_spans), subtract_spans(served, fact.leaving_spans)
    if parts:
        hosted, served = merge_spans((*hosted, *parts)), merge_spans((*served, *parts))
    return hosted, served


def _whole_by_parts(facts: Iterable[NodeFact], n_layers: int, now_s: float) -> dict[NodeId, tuple[Span, ...]]:
    """For each node with trunks the layers that sessions can have there: all of their experts have hosts."""
    if not any([fact.trunks for fact in facts]):
        return {}
    known = [fact for fact in facts if fact.n_layers == n_layers and now_s < fact.issued_at_s + fact.ttl_s]
    with_trunks = [fact for fact in known if fact.served_trunks]
    return {node_id: layers for node_id, layers in layers_served(with_trunks, known).items() if layers}


def is_believable(fact: NodeFact, now_s: float) -> bool:
    """Whether what it claims may still come to be served. An owner's choice has no time from which to count."""
    share = (fact.found_bytes + fact.fetched_bytes) / fact.needed_bytes if fact.needed_bytes else 0.0
    return not fact.placed_at_s or now_s < fact.placed_at_s + CLAIM_S + min(1.0, share) * SLOWEST_S
