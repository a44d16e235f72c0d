"""The choice of a node that has no room for a whole layer, told to the others before it is acted upon."""

from __future__ import annotations

import time
from typing import Any

from node.hosting import Holding
from node.moving.settling import believed, listen, settle
from node.placement import PartsAssignment, PartsBudget, PlacementConfig, Standing, decide_parts
from node.server import Statement
from swarm.discovery import Discovery
from swarm.terms import NodeId


class PartClaims:
    """As Claims, for trunks and single experts; what was chosen is kept for as long as the node runs."""

    def __init__(
        self,
        node_id: NodeId,
        discovery: Discovery,
        said: Statement,
        budget: PartsBudget,
        config: PlacementConfig,
        n_experts: int,
    ) -> None:
        self._node_id = node_id
        self._discovery = discovery
        self._said = said
        self._budget = budget
        self._config = config
        self._n_experts = n_experts

    def propose(self, n_layers: int) -> dict[str, Any]:
        """What the facts in force say now, as an event's fields; nothing is claimed."""
        return _told(self._look(n_layers, time.time()))

    async def choose(self) -> dict[str, Any]:
        """Claim, listen, and yield to older claims, until nothing speaks against it -> the event's fields."""
        await listen(self._discovery)
        said = self._said
        said.placed_at_s = time.time()

        def look(choice: PartsAssignment) -> PartsAssignment | None:
            again = self._look(said.n_layers, said.placed_at_s)
            return again if (again.trunks, again.experts) != (choice.trunks, choice.experts) else None

        choice = await settle(
            self._look(said.n_layers, said.placed_at_s),
            state=self._state,
            look=look,
            discovery=self._discovery,
            config=self._config,
        )
        return _told(choice)

    def _look(self, n_layers: int, placed_at_s: float) -> PartsAssignment:
        me = Standing(self._node_id, self._said.profile, placed_at_s)
        facts = believed(self._discovery)
        return decide_parts(facts, self._budget, me, n_layers=n_layers, n_experts=self._n_experts, now_s=time.time())

    def _state(self, choice: PartsAssignment) -> None:
        self._said.hold(Holding((), choice.trunks, choice.experts))
        self._said.withdraw()
        self._discovery.announce_change()


def _told(choice: PartsAssignment) -> dict[str, Any]:
    return {**Holding((), choice.trunks, choice.experts).as_event(), "reasons": list(choice.reasons)}
