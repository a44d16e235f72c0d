"""Results on their way from a last stage to the client that opened the session, who asks for them by a call apart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from swarm.errors import SessionLost
from swarm.messages import Open, Result
from swarm.terms import NodeId, SessionId

RESULTS_WAIT_S = 10.0
"""How long a client may ask for the results of a session before its Open has come down the route."""

MAX_QUEUED_RESULTS = 64
"""Results that wait for a client that does not read; then the route stands still behind it."""


@dataclass(slots=True, eq=False)
class Outbox:
    """Results of one epoch of a session whose last stage is here."""

    client_id: NodeId
    session_id: SessionId
    epoch: int
    results: asyncio.Queue[Result | None] = field(default_factory=lambda: asyncio.Queue(MAX_QUEUED_RESULTS))


class Outboxes:
    """By client: no other reads or replaces them."""

    def __init__(self) -> None:
        self._outboxes: dict[tuple[NodeId, SessionId], Outbox] = {}
        self._opened = asyncio.Condition()

    async def open(self, opening: Open) -> Outbox:
        outbox = Outbox(opening.client_id, opening.session_id, opening.epoch)
        async with self._opened:
            self._outboxes[opening.client_id, opening.session_id] = outbox
            self._opened.notify_all()
        return outbox

    def close(self, outbox: Outbox) -> None:
        if self._outboxes.get((outbox.client_id, outbox.session_id)) is outbox:
            del self._outboxes[outbox.client_id, outbox.session_id]
        if outbox.results.full():
            outbox.results.get_nowait()  # the reader is gone or will learn from the sentinel that the session is
        outbox.results.put_nowait(None)

    async def read(self, session_id: SessionId, epoch: int, caller: NodeId) -> AsyncIterator[Result]:
        """Raises: SessionLost when no such session of this caller is, or stays, open here."""
        outbox = await self._find(session_id, epoch, caller)
        while True:
            result = await outbox.results.get()
            if result is None:
                if not outbox.results.full():
                    outbox.results.put_nowait(None)  # for whoever else reads this session's results
                raise SessionLost("the session ended on the last stage")
            yield result

    async def _find(self, session_id: SessionId, epoch: int, caller: NodeId) -> Outbox:
        def found() -> Outbox | None:
            outbox = self._outboxes.get((caller, session_id))
            return outbox if outbox is not None and outbox.epoch == epoch else None

        try:
            async with asyncio.timeout(RESULTS_WAIT_S), self._opened:
                await self._opened.wait_for(lambda: found() is not None)
        except TimeoutError:
            raise SessionLost("no such session of this client has its last stage here") from None
        outbox = found()
        if outbox is None:
            raise SessionLost("the session ended on the last stage")
        return outbox
