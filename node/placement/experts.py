"""Which single experts a machine should host, by how often each is routed to. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from swarm.facts import NodeFact
from swarm.terms import ExpertId

COLDEST = 1 / 255
"""What an expert that was never seen to be routed to counts as: its fact could not have said less."""


def heat_of(facts: Iterable[NodeFact]) -> dict[ExpertId, float]:
    """The share of its layer's rows that each expert gets, the mean of what the nodes with its router say."""
    said: dict[ExpertId, list[float]] = {}
    for fact in facts:
        for layer in fact.heat:
            for expert_idx, share in enumerate(layer.shares):
                said.setdefault(ExpertId(layer.layer_idx, expert_idx), []).append(share / 255)
    return {expert: sum(shares) / len(shares) for expert, shares in said.items()}


def choose_experts(
    heat: Mapping[ExpertId, float],
    replicas: Mapping[ExpertId, int],
    n_experts: int,
    *,
    all_experts: Sequence[ExpertId],
    near: Iterable[int] | None = None,
) -> tuple[ExpertId, ...]:
    """The n_experts of all_experts to host, sorted: first those that nobody has, then those with the most rows a host.

    heat: an expert's share of its layer's rows, by routing as it was measured; never weights or their norms. near: the
    layers whose router is on this very machine: there an expert saves a round trip rather than a queue, so that they
    come before others and count whole, whoever else has them. Ties go to the smaller layer and index.
    """
    near_layers = frozenset(near or ())

    def worth(expert: ExpertId) -> tuple[bool, bool, float]:
        n_hosts = replicas.get(expert, 0)
        share = max(COLDEST, heat.get(expert, 0.0))
        is_near = expert.layer_idx in near_layers
        return n_hosts == 0, is_near, share if is_near else share / (n_hosts + 1)

    by_worth = sorted(all_experts, key=lambda expert: (*(-value for value in worth(expert)), expert))
    return tuple(sorted(by_worth[:n_experts]))
