"""Who has which expert, by the facts in force."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from swarm.facts import NodeFact, NodeState
from swarm.terms import Address, ExpertId, ExpertRange, NodeId, Profile

REFRESH_S = 0.1
"""How old what it says may be: with many nodes, reading all of their facts for every layer would take longer than the
layer."""


class Host(NamedTuple):
    """A node, at an address: one that comes back elsewhere is another host."""

    node_id: NodeId
    address: Address


Said = Mapping[Host, tuple[bool, tuple[ExpertRange, ...]]]
"""Of each host: whether it is about to leave, and the experts that it answers for."""


class Directory:
    """Hosts of experts that keep the profile of this node.

    facts: those in force now. own_id: this node, which does not ask itself. shape: the model's layers, and the experts
    of each; who speaks of another is no host.
    """

    def __init__(
        self,
        facts: Callable[[], Sequence[NodeFact]],
        own_id: NodeId,
        profile: Profile,
        shape: tuple[int, int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._facts = facts
        self._own_id = own_id
        self._profile = profile
        self._shape = shape
        self._clock = clock
        self._read_s = float("-inf")
        self._said: Said = {}
        self._hosts: Mapping[ExpertId, tuple[Host, ...]] = {}
        self._named: frozenset[Host] = frozenset()

    def hosts_of(self, expert: ExpertId) -> tuple[Host, ...]:
        """Those that are about to leave come only where there are no others."""
        self._refresh()
        return self._hosts.get(expert, ())

    def names(self, host: Host) -> bool:
        """Whether it has any expert at all, by what was last read."""
        return host in self._named

    def _refresh(self) -> None:
        if self._clock() - self._read_s < REFRESH_S:
            return
        said = {
            Host(fact.node_id, fact.address): (fact.state is NodeState.DRAINING, fact.served_experts)
            for fact in self._facts()
            if self._may_host(fact)
        }
        if said != self._said:  # facts are renewed more often than they say anything new
            self._said = said
            self._hosts, self._named = _by_expert(said)
        self._read_s = self._clock()

    def _may_host(self, fact: NodeFact) -> bool:
        return (
            fact.node_id != self._own_id
            and (fact.n_layers, fact.n_experts) == self._shape
            and fact.profile.satisfies(self._profile)
        )


def _by_expert(said: Said) -> tuple[dict[ExpertId, tuple[Host, ...]], frozenset[Host]]:
    """Who has each expert, and who has any."""
    staying: defaultdict[ExpertId, list[Host]] = defaultdict(list)
    leaving: defaultdict[ExpertId, list[Host]] = defaultdict(list)
    for host, (is_leaving, ranges) in said.items():
        found = leaving if is_leaving else staying
        for experts in ranges:
            for expert in experts:
                found[expert].append(host)
    hosts = {expert: tuple(them) for expert, them in {**leaving, **staying}.items()}
    return hosts, frozenset(host for host, (_, ranges) in said.items() if ranges)
