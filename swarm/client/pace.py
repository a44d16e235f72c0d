"""Whether a hop has become slow: its own steps now against its own steps before. Pure."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from swarm.messages import HopTime
from swarm.terms import NodeId

N_FIRST = 16
"""Steps of one token that tell how fast a hop is."""

N_LAST = 8
"""Steps that must have become slow: a hop that has another prompt to compute in between is none."""

FACTOR = 5.0
LEAST_S = 0.25
"""A hop is slow when it takes FACTOR times as long as at first, and LEAST_S longer: less is not worth another route."""


@dataclass(frozen=True, slots=True)
class Slow:
    """A hop that has become slow: what a step takes it now, and what one took before."""

    node_id: NodeId
    now_s: float
    before_s: float


class Pace:
    """The hops of one route. A new route is a new Pace, so that it takes N_FIRST steps before one is left again."""

    def __init__(self) -> None:
        self._first: dict[NodeId, list[float]] = {}
        self._last: dict[NodeId, deque[float]] = {}

    def note(self, times: Sequence[HopTime]) -> None:
        """What each hop spent on one token, its queue included."""
        for time in times:
            spent_s = time.queue_s + time.compute_s
            first = self._first.setdefault(time.node_id, [])
            if len(first) < N_FIRST:
                first.append(spent_s)
            else:
                self._last.setdefault(time.node_id, deque(maxlen=N_LAST)).append(spent_s)

    def slow_hop(self) -> Slow | None:
        """The one that has become slower by most seconds, if one has."""
        found = []
        for node_id, last in self._last.items():
            before_s, now_s = statistics.median(self._first[node_id]), statistics.median(last)
            if len(last) == N_LAST and now_s > FACTOR * before_s and now_s - before_s > LEAST_S:
                found.append(Slow(node_id, now_s, before_s))
        return max(found, key=lambda slow: slow.now_s - slow.before_s, default=None)
