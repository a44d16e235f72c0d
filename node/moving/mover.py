"""Moves a serving node from some layers to others, while it serves."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from node.hosting import give_back_freed_memory, regroup
from node.model import SpanModel
from node.moving.claims import Claims
from node.placement import Assignment, Part, plan_move
from node.stage import Stage
from swarm.errors import StageFull, SwarmError
from swarm.terms import Span, merge_spans, subtract_spans

log = logging.getLogger("swarm.node")

OnLoaded = Callable[[tuple[Span, ...], Iterable[SpanModel]], None]
"""Told which layers can be served so far, and the models that hold them."""

LoadSpans = Callable[[tuple[Span, ...], tuple[Span, ...], OnLoaded], Awaitable[None]]
"""(spans to fetch and load, spans that stay, who is told of each layer that is there). Raises: SwarmError."""


class Mover:
    """Asks its claims by the clock whether to move, and moves.

    leave_timeout_s: how long sessions on layers that were left may go on; then they find themselves another node.
    """

    def __init__(
        self,
        claims: Claims,
        stage: Stage,
        load: LoadSpans,
        on_event: Callable[[str, dict[str, Any]], None],
        leave_timeout_s: float,
    ) -> None:
        self._claims = claims
        self._stage = stage
        self._load = load
        self._on_event = on_event
        self._leave_timeout_s = leave_timeout_s

    @property
    def served(self) -> tuple[Span, ...]:
        return merge_spans(self._stage.spans)

    async def run(self) -> None:
        """For as long as the task lives. A move that fails or is broken off is given up: the node serves what it has,
        and says so.
        """
        while True:
            await asyncio.sleep(self._claims.config.interval_s * random.uniform(0.5, 1.5))
            try:
                await self._reconsider()
            except Exception:  # the top of a daemon's loop: no look may be the last
                log.exception("a look at what to serve failed")

    async def _reconsider(self) -> None:
        target = await self._claims.reconsider()
        if target is None:
            return
        try:
            self._on_event("moving", {"from": _words(self.served), **_told(target)})
            await self._move(target.spans)
        except SwarmError as error:
            log.warning("a move to layers %s failed: %s", ", ".join(map(str, target.spans)), error.message)
        finally:
            self._claims.state(self.served, self._claims.placed_at_s)
        self._on_event("moved", {"spans": _words(self.served)})

    async def _move(self, target: tuple[Span, ...]) -> None:
        for part in plan_move(self.served, target, self._claims.budget.n_layers, self._claims.unserved()):
            if not await self._take(part, target):
                return

    async def _take(self, part: Part, target: tuple[Span, ...]) -> bool:
        """Load what a part loads, each layer served as soon as it is there, then leave what it leaves; False when the
        leaving would make a hole.
        """
        placed_at_s, before = self._claims.placed_at_s, self.served

        def on_loaded(spans: tuple[Span, ...], models: Iterable[SpanModel]) -> None:
            if (now := merge_spans([*before, *spans])) != self.served:
                self._host(now, models)
                self._claims.state(self.served, placed_at_s, target)

        if part.load:
            await self._load(part.load, before, on_loaded)
        if not part.leave:
            return True
        if not await self._claims.may_leave(part.leave, self.served):
            return False
        self._host(subtract_spans(self.served, part.leave), [])
        self._claims.state(self.served, placed_at_s, target)
        await self._end_sessions()
        return True

    def _host(self, spans: tuple[Span, ...], loaded: Iterable[SpanModel]) -> None:
        """From now on these, out of what is here and what was just loaded."""
        self._stage.replace_models(regroup([*self._stage.models, *loaded], spans))

    async def _end_sessions(self) -> None:
        """Give those on layers that were left their time, then close them; only then is the memory free."""
        deadline_s = time.monotonic() + self._leave_timeout_s
        while self._stage.sessions_beyond() and time.monotonic() < deadline_s:
            await asyncio.sleep(0.05)
        left = StageFull("this node has moved to other layers; other nodes go on with the session")
        self._stage.hand_over(left, self._stage.sessions_beyond())
        give_back_freed_memory()


def _told(assignment: Assignment) -> dict[str, Any]:
    return {"spans": _words(assignment.spans), "reasons": list(assignment.reasons)}


def _words(spans: tuple[Span, ...]) -> list[str]:
    return [str(span) for span in spans]
