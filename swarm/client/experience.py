"""What this client has met itself: round trips, how long steps took along its routes, and the route that it took last.

Nodes state their speed; whoever has had a session there knows better.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from swarm.discovery import RttBook
from swarm.facts import NodeFact, Route
from swarm.routing import believe, links_of, mend_route, plan_route, route_cost_s, steady, worth_measuring
from swarm.routing.costs import Links
from swarm.terms import NodeId, Profile

DISAPPOINTING = 2.0
"""A step that takes so many times what was stated, and DISAPPOINTING_S more, disproves it: less may be mere chance."""
DISAPPOINTING_S = 0.05

REMEMBERED_S = 120.0
"""How long a disproved word stays disproved: then the node may be better, and is tried again."""

LINKS_S = 1.0
"""How old the links between nodes may be that a route is planned with: a large swarm has many thousands."""

PLANNED_S = 0.1
"""How long a plan holds for the same facts and round trips: of requests that come together one alone pays for it."""


@dataclass(frozen=True, slots=True)
class _Seen:
    layer_time_s: float
    until_s: float  # monotonic


@dataclass(frozen=True, slots=True)
class _Planned:
    """asked: all that the route was planned from, but for the time."""

    asked: tuple[Sequence[NodeFact], Mapping[NodeId, float], Mapping[NodeId, _Seen], Profile | None, frozenset[NodeId]]
    route: Route
    until_s: float  # monotonic


class Experience:
    """Of one client with one release. rtts: what it measures as it exchanges facts. client_id: whose lot decides among
    nodes that are nearly equal. for_batches: wide routes rather than quick ones.
    """

    def __init__(self, rtts: RttBook, n_layers: int, client_id: str = "", for_batches: bool = False) -> None:
        self._rtts = rtts
        self._n_layers = n_layers
        self._client_id = client_id
        self._for_batches = for_batches
        self._seen: dict[NodeId, _Seen] = {}
        self._last: dict[Profile | None, Route] = {}
        self._links: Links = {}
        self._links_at_s = float("-inf")
        self._planned: _Planned | None = None

    def plan(self, stated: Sequence[NodeFact], profile: Profile | None, exclude: frozenset[NodeId]) -> Route:
        """The best route by these facts and by what was met; the last one again while it is about as good.

        Raises: LayersUncovered.
        """
        facts, rtt_s, links_s = self._judged(stated)
        asked = (stated, rtt_s, self._seen, profile, exclude)
        now_s = time.monotonic()
        if self._planned is None or now_s >= self._planned.until_s or asked != self._planned.asked:
            route = self._plan(facts, profile, exclude, rtt_s, links_s)
            self._planned = _Planned((stated, rtt_s, dict(self._seen), profile, exclude), route, now_s + PLANNED_S)
        return self._planned.route

    def _plan(
        self, facts: Sequence[NodeFact], profile: Profile | None, exclude: frozenset[NodeId],
        rtt_s: Mapping[NodeId, float], links_s: Links,
    ) -> Route:  # fmt: skip
        now_s = time.time()
        best = plan_route(
            facts, n_layers=self._n_layers, now_s=now_s, profile=profile, exclude=exclude, rtt_s=rtt_s,
            links_s=links_s, client=self._client_id, for_batches=self._for_batches,
        )  # fmt: skip
        if self._for_batches:
            return best
        route = steady(
            self._last.get(profile), best, facts,
            n_layers=self._n_layers, now_s=now_s, exclude=exclude, rtt_s=rtt_s, links_s=links_s,
        )  # fmt: skip
        self._last[profile] = route
        return route

    def worth_measuring(
        self, stated: Sequence[NodeFact], n: int, profile: Profile | None, exclude: frozenset[NodeId],
        silent: frozenset[NodeId],
    ) -> list[NodeFact]:  # fmt: skip
        """At most n nodes whose round trips might make for a better route of this profile, of those that answer."""
        facts, rtt_s, links_s = self._judged(stated)
        return worth_measuring(
            facts, n, n_layers=self._n_layers, now_s=time.time(), rtt_s=rtt_s, links_s=links_s, profile=profile,
            exclude=exclude, silent=silent,
        )  # fmt: skip

    def mend(self, broken: Route, stated: Sequence[NodeFact], exclude: frozenset[NodeId]) -> Route:
        """The broken route with the best that there is, by what was met, in the place of what it lost.

        Raises: LayersUncovered.
        """
        facts, rtt_s, _ = self._judged(stated)
        return mend_route(broken, facts, now_s=time.time(), exclude=exclude, rtt_s=rtt_s)

    def note(self, route: Route, stated: Sequence[NodeFact], step_s: float) -> None:
        """A step of one token took step_s along this route.

        Where that disproves what its nodes state, all of them share the time evenly, layer by layer: who is at fault
        cannot be seen from here. Those that also make up a route which holds what it states are believed again.
        """
        facts, rtt_s, links_s = self._judged(stated)
        by_id = {fact.node_id: fact for fact in facts}
        if any(hop.node_id not in by_id for hop in route.hops):
            return
        expected_s = route_cost_s(route, stated, rtt_s, links_s)
        if step_s <= DISAPPOINTING * expected_s + DISAPPOINTING_S:
            for hop in route.hops:
                self._seen.pop(hop.node_id, None)
            return
        stated_s = {fact.node_id: fact.layer_time_s for fact in stated}
        on_the_way_s = expected_s - sum(len(hop.span) * stated_s[hop.node_id] for hop in route.hops)
        share_s = max(0.0, step_s - max(0.0, on_the_way_s)) / route.n_layers
        for hop in route.hops:
            self._seen[hop.node_id] = _Seen(share_s, time.monotonic() + REMEMBERED_S)

    def _judged(self, stated: Sequence[NodeFact]) -> tuple[list[NodeFact], Mapping[NodeId, float], Links]:
        now_s = time.monotonic()
        self._seen = {node_id: seen for node_id, seen in self._seen.items() if seen.until_s > now_s}
        rtt_s = self._rtts.rtts_s()
        if now_s - self._links_at_s >= LINKS_S:
            self._links, self._links_at_s = links_of(stated, rtt_s), now_s
        layer_times_s = {node_id: seen.layer_time_s for node_id, seen in self._seen.items()}
        return believe(stated, layer_times_s), rtt_s, self._links
