"""Finds a route now, or waits for one: discovery's facts, less the nodes that just failed, through the pure planner."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from swarm.client.experience import Experience
from swarm.discovery import Discovery
from swarm.errors import LayersUncovered, NoNodesFound, StageFull, SwarmError
from swarm.facts import NodeFact, NodeState, Route
from swarm.terms import NodeId, Profile, Span, merge_spans

log = logging.getLogger("swarm.client")

AVOID_S = 10.0
"""How long a node that failed is left out while others can do its work."""

SOLE_HOST_PAUSE_S = 1.0
"""How long a node that failed is left alone when nobody else can do its work: it may only have lost a connection."""

RETRY_S = 0.25

SPARELESS_S = 1.0
"""How long nobody looks again for a spare, after there was none: a slow hop asks for one at every token."""

N_MEASURED = 16
MEASURE_S = 0.5
"""How many nodes a client asks, and for how long, before it chooses a route among those that it has not met. More of
them find a better one in a large swarm, and make the first token come later."""

MEASURE_INTERVAL_S = 60.0
"""How long it then chooses by what it has."""

SILENT_S = 600.0
"""How long who gave no answer to that is not asked again: the next in line are, who may be there."""

QUIET_S = 2.0
"""How long a search goes on before anybody is told of it: most end sooner."""


@dataclass(frozen=True, slots=True)
class _Avoided:
    """A node that failed: left out until until_s, or, where nobody else will do, until at_least_until_s (monotonic)."""

    until_s: float
    at_least_until_s: float
    why: SwarmError


class RouteFinder:
    """Routes over the live facts of one release.

    Plans with what discovery knows at the moment, and has it ask around only when that is not enough.
    wait_s: how long find() waits for the swarm to become whole, asking at most every RETRY_S.
    client_id, for_batches: see Experience. hint: ends the message that nobody was found.
    """

    def __init__(
        self, discovery: Discovery, n_layers: int, wait_s: float, client_id: str = "", for_batches: bool = False,
        hint: str = "",
    ) -> None:  # fmt: skip
        self._discovery = discovery
        self._n_layers = n_layers
        self.wait_s = wait_s
        self._hint = hint
        self._avoided: dict[NodeId, _Avoided] = {}
        self._spareless: dict[tuple[NodeId, Route], float] = {}  # until when, monotonic
        self._for_batches = for_batches
        self._measured_at_s = float("-inf")
        self._silent: dict[NodeId, float] = {}  # who was asked in vain, until when (monotonic)
        self._experience = Experience(discovery.rtts, n_layers, client_id, for_batches)

    async def find(self, profile: Profile | None, broken: Route | None = None) -> Route:
        """The best route of this profile (None: of the best profile there is). broken: the one before it, whose hops
        have cached what it led over them: those that did not fail stay, where others can fill its gaps.

        Raises: NoNodesFound, LayersUncovered (which layers, what was tried) after wait_s without one.
        """
        started_s = time.monotonic()
        deadline_s = started_s + self.wait_s
        said = ""
        asking: asyncio.Task[None] | None = None
        try:
            while True:
                try:
                    route = self._plan(profile, broken)
                    return self._plan(profile, broken) if broken is None and await self._measure(profile) else route
                except LayersUncovered as error:
                    if error.message != said and time.monotonic() - started_s >= QUIET_S:
                        said = error.message
                        left_s = max(0.0, deadline_s - time.monotonic())
                        log.info("waiting up to %.0f s for nodes: %s; %s", left_s, said, _mend(error))
                    if time.monotonic() >= deadline_s:
                        raise self._explained(error) from error
                if asking is not None and asking.done():
                    asking = asking.result()  # None, or what it raised
                asking = asking or asyncio.create_task(self._discovery.refresh())
                await asyncio.sleep(RETRY_S)  # the first nodes to answer may be enough: others may take long
        finally:
            if asking is not None:
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)

    def learn(self, route: Route, step_s: float) -> None:
        """Steps of one token took step_s along this route."""
        self._experience.note(route, self._facts(), step_s)

    def avoid(self, node_ids: Sequence[NodeId], error: SwarmError) -> None:
        """A route broke, and one of these is to blame: leave them out for a while.

        Other hops may have said so, and may lie: nobody is left out for longer than AVOID_S on their word.
        """
        now_s = time.monotonic()
        pause_s = min(AVOID_S, error.retry_after_s) if isinstance(error, StageFull) else SOLE_HOST_PAUSE_S
        avoid_s = pause_s if isinstance(error, StageFull) else AVOID_S
        for node_id in node_ids:
            self._avoided[node_id] = _Avoided(now_s + avoid_s, now_s + pause_s, error)

    def could_spare(self, node_id: NodeId, route: Route) -> bool:
        """Whether others, none of which failed lately, can do this node's work on the route. Once they could not, the
        answer stays so for SPARELESS_S.
        """
        now_s = time.monotonic()
        self._spareless = {asked: until_s for asked, until_s in self._spareless.items() if until_s > now_s}
        if (node_id, route) in self._spareless:
            return False
        try:
            self._experience.mend(route, self._facts(), frozenset((*self._avoided, node_id)))
        except LayersUncovered:
            self._spareless[node_id, route] = now_s + SPARELESS_S
            return False
        return True

    async def _measure(self, profile: Profile | None) -> bool:
        """Take the round trips that might make for a better route, every so often; whether there were any to take."""
        now_s = time.monotonic()
        if self._for_batches or now_s < self._measured_at_s + MEASURE_INTERVAL_S:
            return False
        self._measured_at_s = now_s
        self._silent = {node_id: until_s for node_id, until_s in self._silent.items() if until_s > now_s}
        wanted = self._experience.worth_measuring(
            self._facts(), N_MEASURED, profile, frozenset(self._avoided), frozenset(self._silent)
        )
        if wanted:
            with contextlib.suppress(TimeoutError):  # those who take so long are far away, or gone
                async with asyncio.timeout(MEASURE_S):
                    await self._discovery.measure(wanted)
            measured = self._discovery.rtts.rtts_s()
            self._silent |= {fact.node_id: now_s + SILENT_S for fact in wanted if fact.node_id not in measured}
        return bool(wanted)

    def _plan(self, profile: Profile | None, broken: Route | None) -> Route:
        """Over the facts in force: without the avoided nodes, or else with those that have had their pause."""
        now_s = time.monotonic()
        self._avoided = {n: avoided for n, avoided in self._avoided.items() if avoided.until_s > now_s}
        try:
            return self._plan_without(frozenset(self._avoided), profile, broken)
        except LayersUncovered:
            paused = frozenset(n for n, avoided in self._avoided.items() if avoided.at_least_until_s > now_s)
            if len(paused) == len(self._avoided):
                raise
            return self._plan_without(paused, profile, broken)

    def _plan_without(self, exclude: frozenset[NodeId], profile: Profile | None, broken: Route | None) -> Route:
        facts = self._facts()
        if broken is not None and profile == broken.profile:
            with contextlib.suppress(LayersUncovered):
                return self._experience.mend(broken, facts, exclude)
        return self._experience.plan(facts, profile, exclude)

    def _facts(self) -> list[NodeFact]:
        """Those of this model: nodes of another depth serve another."""
        return [fact for fact in self._discovery.nodes() if fact.n_layers == self._n_layers]

    def _explained(self, error: LayersUncovered) -> SwarmError:
        """The same, with what was tried; and NoNodesFound when there is no swarm at all."""
        failed = "; ".join(f"node {n[:8]}: {avoided.why.message}" for n, avoided in self._avoided.items())
        if not any(f.state is not NodeState.JOINING or f.loaded_spans for f in self._discovery.nodes()) and not failed:
            joining = len(self._discovery.nodes())
            who = f"all {joining} known nodes are still joining" if joining else "no node of this release was found"
            return NoNodesFound(
                f"{who} within {self.wait_s:g} s (tried {self._discovery.describe_attempts()}); "
                "start one with `swarm node start MAGNET`, name one with --peer HOST:PORT, or use a link that says "
                f"whom to ask first, as `swarm release seed` prints it{self._hint}"
            )
        what = f"{error.message}; {_mend(error)}"
        return LayersUncovered(what + (f" (left out: {failed})" if failed else ""), error.layers)


def _mend(error: LayersUncovered) -> str:
    spans = merge_spans([Span(layer_idx, layer_idx + 1) for layer_idx in error.layers])
    layers = " ".join(f"--layers {span}" for span in spans) or "--layers START:END"
    return f"mend it with `swarm node start MAGNET {layers}`"
