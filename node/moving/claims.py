"""A node's choice of layers, told to the others before it is acted upon."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any

from node.placement import Assignment, Budget, PlacementConfig, Standing, decide, survey
from node.server import Statement
from swarm.discovery import Discovery
from swarm.facts import NodeState
from swarm.terms import NodeId, Span, merge_spans, subtract_spans

_N_AGREED = 2
"""A claim is settled once so many looks in a row, each after a round of news, found nothing against it."""

_MAX_LOOKS = 24


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
        facts = self._discovery.nodes()
        return decide(facts, self.budget, me, self.config, n_layers=n_layers, now_s=time.time())

    def propose(self, n_layers: int) -> dict[str, Any]:
        """What the facts in force say now, as an event's fields; nothing is claimed."""
        return _told(self.look(n_layers, time.time()), self.budget)

    async def choose(self) -> dict[str, Any]:
        """What a node that hosts nothing yet takes, settled and stated -> the event's fields."""
        await self._discovery.refresh()
        placed_at_s = time.time()
        choice = self.look(self._said.n_layers, placed_at_s)
        return _told(await self._settle(choice, placed_at_s, ()), self.budget)

    async def reconsider(self) -> Assignment | None:
        """Where a serving node should move to, settled, with what it leaves told to all; None to stay.

        The statement is as before then.
        """
        served, placed_at_s = self._said.spans, time.time()
        wish = self.look(self._said.n_layers, placed_at_s, served, served)
        if not wish.moves:
            return None
        before = self._said.placed_at_s
        settled = await self._settle(wish, placed_at_s, served)
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
        """Claim, listen, and yield to older claims, until nothing speaks against it any more."""
        n_agreed = n_looks = 0
        self.state(served, placed_at_s, choice.spans)
        while n_agreed < _N_AGREED and n_looks < _MAX_LOOKS:
            await asyncio.sleep(self.config.settle_s * random.uniform(0.5, 1.0))
            await self._discovery.refresh()
            again = self.look(self._said.n_layers, placed_at_s, choice.spans, served)
            if served and not self.look(self._said.n_layers, placed_at_s, served, served).moves:
                return Assignment(served, ("others closed the hole",), False)
            if again.moves:
                choice, n_agreed = again, 0
                self.state(served, placed_at_s, choice.spans)
            else:
                n_agreed += 1
            n_looks += 1
        return choice

    async def may_leave(self, layers: tuple[Span, ...], served: tuple[Span, ...]) -> bool:
        """Whether others serve all these layers and do not leave them before this node does, by the newest facts."""
        await self._discovery.refresh()
        me = Standing(self._node_id, self._said.profile, self._said.placed_at_s, served, served)
        view = survey(self._discovery.nodes(), self._said.n_layers, time.time(), me)
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
