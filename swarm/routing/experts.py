"""Layers whose experts are elsewhere: which of them a session can have, and which experts have hosts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from swarm.facts import NodeFact
from swarm.terms import ExpertId, NodeId, Profile, Span, counted, merge_spans


def experts_served(facts: Iterable[NodeFact], profile: Profile) -> frozenset[ExpertId]:
    """Those that some node answers for to a trunk of this profile."""
    return frozenset(
        expert
        for fact in facts
        if fact.profile.satisfies(profile)
        for experts in fact.served_experts
        for expert in experts
    )


def layers_served(nodes: Sequence[NodeFact], hosts: Sequence[NodeFact]) -> dict[NodeId, tuple[Span, ...]]:
    """For each node the layers that a session can have there: whole ones, and trunks of which every expert has a host.

    hosts: nodes with facts in force, `nodes` among them; who takes no sessions may still answer for experts.
    """
    served = {profile: experts_served(hosts, profile) for profile in {fact.profile for fact in nodes if fact.trunks}}
    layers = {}
    for fact in nodes:
        spans = [*fact.served_spans]
        for span in fact.served_trunks:
            for layer_idx in span:
                wanted = (ExpertId(layer_idx, expert_idx) for expert_idx in range(fact.n_experts))
                if served[fact.profile].issuperset(wanted):
                    spans.append(Span(layer_idx, layer_idx + 1))
        layers[fact.node_id] = merge_spans(spans)
    return layers


def away_layers(fact: NodeFact) -> tuple[Span, ...]:
    """The trunks here for which others must be asked: some of their experts are not here."""
    own = {expert for experts in fact.served_experts for expert in experts}
    return merge_spans(
        [
            Span(layer_idx, layer_idx + 1)
            for span in fact.trunks
            for layer_idx in span
            if any(ExpertId(layer_idx, expert_idx) not in own for expert_idx in range(fact.n_experts))
        ]
    )


def missing_experts(nodes: Sequence[NodeFact], layers: Iterable[int]) -> tuple[ExpertId, ...]:
    """Of these layers, the experts that trunks which are there lack; of the profile that lacks the fewest."""
    found = []
    for profile in sorted({fact.profile for fact in nodes if fact.trunks}, key=str):
        served = experts_served(nodes, profile)
        trunks = [fact for fact in nodes if fact.profile == profile]
        lacking: list[ExpertId] = []
        for layer_idx in layers:
            here = [fact.n_experts for fact in trunks if any(layer_idx in span for span in fact.served_trunks)]
            wanted = [ExpertId(layer_idx, expert_idx) for expert_idx in range(max(here, default=0))]
            lacking += [expert for expert in wanted if expert not in served]
        if lacking:
            found.append(tuple(lacking))
    return min(found, key=len, default=())


def describe_missing(experts: Sequence[ExpertId]) -> str:
    """For people: `layer 7 expert 3 has no host`, the first few of them."""
    named = [f"layer {expert.layer_idx} expert {expert.expert_idx} has no host" for expert in experts[:4]]
    if len(experts) > 4:
        named.append(f"nor have {counted(len(experts) - 4, 'other')}")
    return ", ".join(named)
