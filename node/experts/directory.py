"""Who has which expert, by the facts in force."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from swarm.facts import NodeFact, NodeState
from swarm.terms import Address, ExpertId, NodeId, Profile

REFRESH_S = 0.1
"""How old what it says may be: with many nodes, reading all of their facts for every layer would take longer than the
layer."""


class Host(NamedTuple):
    """A node, at an address: one that comes back elsewhere is another host."""

    node_id: NodeId
    address: Address


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
        self._hosts: Mapping[ExpertId, tuple[Host, ...]] = {}

    def hosts_of(self, expert: ExpertId) -> tuple[Host, ...]:
        """Those that are about to leave come only where there are no others."""
        if self._clock() - self._read_s >= REFRESH_S:
            self._hosts = self._read()
            self._read_s = self._clock()
        return self._hosts.get(expert, ())

    def _read(self) -> Mapping[ExpertId, tuple[Host, ...]]:
        staying: dict[ExpertId, tuple[Host, ...]] = {}
        leaving: dict[ExpertId, tuple[Host, ...]] = {}
        for fact in self._facts():
            if fact.node_id == self._own_id or not fact.profile.satisfies(self._profile):
                continue
            if (fact.n_layers, fact.n_experts) != self._shape:
                continue
            found = leaving if fact.state is NodeState.DRAINING else staying
            for experts in fact.served_experts:
                for expert in experts:
                    found[expert] = (*found.get(expert, ()), Host(fact.node_id, fact.address))
        return {**leaving, **staying}
