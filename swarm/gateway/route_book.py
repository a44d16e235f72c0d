"""Which nodes serve which answer: the generations that run, and the last that ended. Knows no text of theirs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from swarm.client.values import Generation
from swarm.facts import Route

KEPT = 256
"""Ended answers whose route can still be asked for: a page asks within seconds of the end."""


@dataclass(frozen=True, slots=True)
class RouteTaken:
    """One answer's way through the swarm, so far or in the end.

    route: None until one is found. n_replays: routes that were lost and replaced. running_s: until now or its end.
    """

    answer_id: str
    model: str
    route: Route | None
    n_tokens: int
    tokens_per_s: float
    n_replays: int
    running_s: float
    is_running: bool

    def fields(self) -> dict[str, Any]:
        return {
            "id": self.answer_id,
            "model": self.model,
            "hops": route_fields(self.route),
            "n_tokens": self.n_tokens,
            "tokens_per_s": round(self.tokens_per_s, 2),
            "n_replays": self.n_replays,
            "running_s": round(self.running_s, 2),
            "is_running": self.is_running,
        }


class RouteBook:
    """Follows generations by the id of the answer that they belong to; of several under one id, the last begun."""

    def __init__(self) -> None:
        self._running: dict[object, tuple[str, str, Callable[[], Generation]]] = {}
        self._ended: OrderedDict[str, RouteTaken] = OrderedDict()

    @contextmanager
    def following(self, answer_id: str, model: str, generation: Callable[[], Generation]) -> Iterator[None]:
        """Have it listed as running for as long as the context lasts. generation: tells all so far, at any time."""
        key = object()
        self._running[key] = (answer_id, model, generation)
        try:
            yield
        finally:
            del self._running[key]
            self._ended[answer_id] = _taken(answer_id, model, generation(), is_running=False)
            self._ended.move_to_end(answer_id)
            while len(self._ended) > KEPT:
                self._ended.popitem(last=False)

    def running(self, model: str | None = None) -> tuple[RouteTaken, ...]:
        """Those under way (of one model), the longest running first."""
        return tuple(
            _taken(answer_id, name, generation(), is_running=True)
            for answer_id, name, generation in self._running.values()
            if model in (None, name)
        )

    def find(self, answer_id: str) -> RouteTaken | None:
        """By its answer's id, running or lately ended."""
        running = [taken for taken in self.running() if taken.answer_id == answer_id]
        return running[-1] if running else self._ended.get(answer_id)


def route_fields(route: Route | None) -> list[dict[str, Any]]:
    """A route's hops for JSON: [{"node_id", "span": [start, end)}, ...]; none while there is no route."""
    hops = route.hops if route is not None else ()
    return [{"node_id": hop.node_id, "span": [hop.span.start, hop.span.end]} for hop in hops]


def _taken(answer_id: str, model: str, generation: Generation, *, is_running: bool) -> RouteTaken:
    timings = generation.timings
    return RouteTaken(
        answer_id,
        model,
        generation.route,
        len(generation.ids),
        timings.tokens_per_s,
        timings.n_replays,
        timings.total_s,
        is_running,
    )
