"""A node's choice of layers, told to the others before it is acted upon."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from node.moving.settling import believed, listen, meet_those_who_matter, settle, unserved
from node.placement import Assignment, Budget, PlacementConfig, Standing, decide, survey
from node.server import Statement
from swarm.discovery import Discovery
from swarm.facts import NodeState
from swarm.terms import NodeId, Span, merge_spans, subtract_spans


class Claims:
    """Decides by the facts in force, and states what it decided.

    A claim is the statement's spans, not loaded yet, with the time at which they were chosen. Of two nodes that claim
    the same, both come to know of both, and the later one decides again.
    """

    def __init__(
        self, node_id: NodeId, discovery: Discovery, said: Statement, budget: Budget, config: PlacementConfig
    ) -> None:
        self.budget = budget
        self.config = config
        self._node_id = node_id
        self._discovery = discovery
        self._said = said

    @property
    def placed_at_s(self) -> float:
        """When the layers that are stated now were chosen."""
        return self._said.placed_at_s

    def look(
        self, n_layers: int, placed_at_s: float, spans: Sequence[Span] = (), served: Sequence[Span] = ()
    ) -> Assignment:
        """What the facts in force say now; nothing is claimed."""
        me = Standing(self._node_id, self._said.profile, placed_at_s, tuple(spans), tuple(served))
        return decide(believed(self._discovery), self.budget, me, self.config, n_layers=n_layers, now_s=time.time())

    def propose(self, n_layers: int) -> dict[str, Any]:
        """What the facts in force say now, as an event's fields; nothing is claimed."""
        return _told(self.look(n_layers, time.time()), self.budget)

    async def choose(self) -> dict[str, Any]:
        """What a node that hosts nothing yet takes, settled and stated -> the event's fields."""
        await listen(self._discovery)
        placed_at_s = time.time()
        choice = self.look(self._said.n_layers, placed_at_s)
        return _told(await self._settle(choice, placed_at_s, ()), self.budget)

    async def reconsider(self) -> Assignment | None:
        """Where a serving node should move to, settled, with what it leaves told to all; None to stay.

        The statement is as before then, and when the settling is broken off.
        """
        await meet_those_who_matter(self._discovery)
        served, placed_at_s = self._said.spans, time.time()
        wish = self.look(self._said.n_layers, placed_at_s, served, served)
        if not wish.moves:
            return None
        before = self._said.placed_at_s
        try:
            settled = await self._settle(wish, placed_at_s, served)
        except BaseException:
            self.state(served, before)
            raise
        if settled.spans != served:
            return settled
        self.state(served, before)
        return None

    def state(self, served: tuple[Span, ...], placed_at_s: float, claimed: tuple[Span, ...] | None = None) -> None:
        """Say what is served and, where that is more or less, what is claimed and left."""
        said, target = self._said, served if claimed is None else claimed
        said.spans, said.loaded = merge_spans([*served, *target]), served
        said.leaving, said.placed_at_s = subtract_spans(served, target), placed_at_s
        said.state = NodeState.SERVING if served == said.spans else NodeState.JOINING
        said.withdraw()
        self._discovery.announce_change()

    async def _settle(self, choice: Assignment, placed_at_s: float, served: tuple[Span, ...]) -> Assignment:
        n_layers = self._said.n_layers

        def look(choice: Assignment) -> Assignment | None:
            if served and not self.look(n_layers, placed_at_s, served, served).moves:
                stay = Assignment(served, ("others closed the hole",), False)
                return stay if choice.spans != served else None
            again = self.look(n_layers, placed_at_s, choice.spans, served)
            return again if again.moves else None

        return await settle(
            choice,
            state=lambda choice: self.state(served, placed_at_s, choice.spans),
            look=look,
            discovery=self._discovery,
            config=self.config,
        )

    def unserved(self) -> frozenset[int]:
        """The layers that no other node serves now."""
        return unserved(self._discovery, self._said.n_layers)

    async def may_leave(self, layers: tuple[Span, ...], served: tuple[Span, ...]) -> bool:
        """Whether others serve all these layers and do not leave them before this node does: such as answer now, for
        a layer's last copy is not given up on hearsay.
        """
        await self._discovery.refresh()
        n_layers, now_s = self._said.n_layers, time.time()
        wanted = {layer_idx for span in layers for layer_idx in span}
        others = self._discovery.others()
        hosts = [fact for fact in others if not wanted.isdisjoint(idx for span in fact.served_spans for idx in span)]
        answered = await self._discovery.meet(hosts)
        facts = [fact for fact in self._discovery.others() if fact.node_id in answered]
        me = Standing(self._node_id, self._said.profile, self._said.placed_at_s, served, served)
        view = survey(facts, n_layers, now_s, me)
        return all(view.serving[layer_idx] > 0 for span in layers for layer_idx in span)


def _told(assignment: Assignment, budget: Budget) -> dict[str, Any]:
    """For people and programs: what is hosted, and why."""
    return {
        "spans": [str(span) for span in assignment.spans],
        "reasons": list(assignment.reasons),
        "max_layers": budget.n_layers,
        "layer_time_s": budget.layer_time_s,
        "throughput": budget.throughput(sum(map(len, assignment.spans))),
    }
