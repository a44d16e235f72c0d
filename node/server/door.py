"""The Stage service from the first moment on."""

from __future__ import annotations

from collections.abc import AsyncIterator

from node.server.sessions import SessionHandler
from swarm.errors import StageFull
from swarm.messages import Failure, Open, Opened, Result, Step
from swarm.terms import NodeId, SessionId


class Door:
    """Refuses sessions until there is somebody to serve them: set `sessions` then."""

    def __init__(self) -> None:
        self.sessions: SessionHandler | None = None

    def run(self, opening: Open, steps: AsyncIterator[Step], caller: NodeId) -> AsyncIterator[Opened | Failure]:
        return self._inside().run(opening, steps, caller)

    def results(self, session_id: SessionId, epoch: int, caller: NodeId) -> AsyncIterator[Result]:
        return self._inside().results(session_id, epoch, caller)

    def _inside(self) -> SessionHandler:
        if self.sessions is None:
            raise StageFull("this node is still joining and serves no layers yet", retry_after_s=5.0)
        return self.sessions
