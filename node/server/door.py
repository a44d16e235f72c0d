"""The Stage service from the first moment on to the last."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from node.server.sessions import SessionHandler
from swarm.errors import StageFull
from swarm.messages import Failure, Open, Opened, Result, Step
from swarm.terms import NodeId, SessionId

AWAY_S = 10.0
"""For how long whoever is sent away from a node that leaves need not come back."""


class Door:
    """Refuses sessions until there is somebody to serve them (set `sessions` then), and once the node leaves (set
    `is_closing`).

    n_running: streams of sessions that are not done, their last words included.
    """

    def __init__(self) -> None:
        self.sessions: SessionHandler | None = None
        self.is_closing = False
        self.n_running = 0

    async def run(self, opening: Open, steps: AsyncIterator[Step], caller: NodeId) -> AsyncIterator[Opened | Failure]:
        sessions = self._inside()
        if self.is_closing:
            raise StageFull("this node is draining and takes no new sessions; choose another", retry_after_s=AWAY_S)
        self.n_running += 1
        try:
            async with contextlib.aclosing(sessions.run(opening, steps, caller)) as replies:
                async for reply in replies:
                    yield reply
        finally:
            self.n_running -= 1

    def results(self, session_id: SessionId, epoch: int, caller: NodeId) -> AsyncIterator[Result]:
        return self._inside().results(session_id, epoch, caller)

    def _inside(self) -> SessionHandler:
        if self.sessions is None:
            raise StageFull("this node is still joining and serves no layers yet", retry_after_s=5.0)
        return self.sessions
