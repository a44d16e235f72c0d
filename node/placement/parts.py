"""What a machine hosts that has no room for a whole layer: trunks and experts that nobody has, then hot experts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from node.placement.experts import choose_experts, heat_of
from node.placement.survey import is_believable
from node.placement.values import Standing
from swarm.facts import NodeFact, NodeState
from swarm.terms import ExpertId, ExpertRange, Span, merge_experts, merge_spans


@dataclass(frozen=True, slots=True)
class PartsBudget:
    """In parameters: n_params that fit, of which a trunk takes n_trunk_params and an expert n_expert_params.

    takes_trunks: whether the model's ends would fit too, which the first and the last trunk come with.
    """

    n_params: int
    n_trunk_params: int
    n_expert_params: int
    takes_trunks: bool = True


@dataclass(frozen=True, slots=True)
class PartsAssignment:
    """Sorted; in words why these."""

    trunks: tuple[Span, ...]
    experts: tuple[ExpertId, ...]
    reasons: tuple[str, ...]


def decide_parts(
    facts: Sequence[NodeFact], budget: PartsBudget, me: Standing, *, n_layers: int, n_experts: int, now_s: float
) -> PartsAssignment:
    """Layer by layer what no other node hosts of it, its trunk first, for as long as that fits; then experts by heat.

    Of nodes that only claim parts those count whose claim is older than mine. The same facts in any order, the same
    budget and claim time give the same answer.
    """
    known = _counted(facts, n_layers, now_s, me)
    trunks_of, hosts = _hosts(known, me, n_layers, n_experts, now_s)
    left = budget.n_params
    trunks: set[int] = set()
    missing: list[ExpertId] = []
    for layer_idx in range(n_layers):
        if budget.takes_trunks and not trunks_of[layer_idx] and budget.n_trunk_params <= left:
            trunks.add(layer_idx)
            left -= budget.n_trunk_params
        for expert in (ExpertId(layer_idx, expert_idx) for expert_idx in range(n_experts)):
            if not hosts[expert] and budget.n_expert_params <= left:
                missing.append(expert)
                left -= budget.n_expert_params
    every = [ExpertId(layer_idx, idx) for layer_idx in range(n_layers) for idx in range(n_experts)]
    others = [expert for expert in every if expert not in missing]
    n_more = left // budget.n_expert_params
    hot = choose_experts(heat_of(known), hosts, n_more, all_experts=others, near=trunks)
    spans = merge_spans([Span(layer_idx, layer_idx + 1) for layer_idx in trunks])
    reasons = ["not one whole layer fits"]
    if trunks:
        reasons.append(f"no other node hosts the trunks {', '.join(map(str, spans))}")
    if missing:
        reasons.append(f"no other node hosts the experts {', '.join(map(str, merge_experts(missing)))}")
    if hot:
        reasons.append(f"the experts {', '.join(map(str, merge_experts(hot)))} have the most rows for a host")
    return PartsAssignment(spans, tuple(sorted([*missing, *hot])), tuple(reasons))


def _counted(facts: Iterable[NodeFact], n_layers: int, now_s: float, me: Standing) -> list[NodeFact]:
    """Of the other nodes, in force and of my numerics."""
    return [
        fact
        for fact in facts
        if fact.node_id != me.node_id
        and fact.n_layers == n_layers
        and now_s < fact.issued_at_s + fact.ttl_s
        and fact.state not in (NodeState.DRAINING, NodeState.LEFT)
        and fact.profile.base == me.profile.base
    ]


def _hosts(
    known: Iterable[NodeFact], me: Standing, n_layers: int, n_experts: int, now_s: float
) -> tuple[list[int], Counter[ExpertId]]:
    """How many nodes host, or claimed before me, each layer's trunk and each expert; whole layers count as both."""
    trunks = [0] * n_layers
    experts: Counter[ExpertId] = Counter()
    for fact in known:
        is_before = (fact.placed_at_s, fact.node_id) < (me.placed_at_s, me.node_id)
        all_of_it = fact.state is NodeState.SERVING or (is_before and is_believable(fact, now_s))
        whole = fact.spans if all_of_it else fact.loaded_spans
        alone: tuple[ExpertRange, ...] = fact.experts if all_of_it else fact.loaded_experts
        for span in (*whole, *(fact.trunks if all_of_it else fact.loaded_trunks)):
            for layer_idx in span:
                trunks[layer_idx] += 1
        experts.update(expert for ranges in alone for expert in ranges)
        experts.update(ExpertId(layer_idx, idx) for span in whole for layer_idx in span for idx in range(n_experts))
    return trunks, experts
