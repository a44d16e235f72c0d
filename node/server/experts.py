"""The Experts service: streams of calls, each answered or refused by itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

from node.experts import ExpertHost
from swarm.errors import RemoteProtocolError, SwarmError
from swarm.messages import ExpertAnswer, ExpertCall, ExpertOpen, ExpertRefusal
from swarm.rpc import error_to_failure
from swarm.terms import Infohash, NodeId, Profile

_log = logging.getLogger(__name__)

MAX_CALLS_AT_ONCE = 64
"""Of one stream, from when they are read until their answers are written: what comes beyond waits unread, and stops its
sender."""


class ExpertsHandler:
    """Serves the experts of one release in one profile."""

    def __init__(self, node_id: NodeId, release: Infohash, profile: Profile, host: ExpertHost) -> None:
        self._node_id = node_id
        self._release = release
        self._profile = profile
        self._host = host

    async def apply(
        self, opening: ExpertOpen, calls: AsyncIterator[ExpertCall], caller: NodeId
    ) -> AsyncIterator[ExpertAnswer | ExpertRefusal]:
        """Answers as they are computed, in any order. Raises: RemoteProtocolError for another release or profile."""
        if opening.release != self._release:
            raise RemoteProtocolError(f"this node serves release {self._release}, not {opening.release}")
        if not self._profile.satisfies(opening.profile):
            raise RemoteProtocolError(f"this node computes in profile {self._profile}, not {opening.profile}")
        replies: asyncio.Queue[ExpertAnswer | ExpertRefusal | None] = asyncio.Queue()
        room = asyncio.Semaphore(MAX_CALLS_AT_ONCE)
        answering: set[asyncio.Task[None]] = set()

        async def answer(call: ExpertCall) -> None:
            replies.put_nowait(await self._answer(call, caller))

        async def read() -> None:
            try:
                await room.acquire()
                async for call in calls:
                    task = asyncio.create_task(answer(call))
                    answering.add(task)
                    task.add_done_callback(answering.discard)
                    await room.acquire()
                await asyncio.gather(*answering)
            finally:
                replies.put_nowait(None)

        reading = asyncio.create_task(read())
        try:
            while (reply := await replies.get()) is not None:
                yield reply
                room.release()
            await reading  # raises what was wrong with a frame
        finally:
            for task in (reading, *answering):
                task.cancel()
            await asyncio.gather(reading, *answering, return_exceptions=True)

    async def _answer(self, call: ExpertCall, caller: NodeId) -> ExpertAnswer | ExpertRefusal:
        try:
            return await self._host.answer(call, caller)
        except Exception as error:  # every call gets a reply, whatever became of it
            if not isinstance(error, SwarmError):
                _log.error("a call of experts failed", exc_info=error)
            failure = error_to_failure(error, 0, self._node_id)
            return ExpertRefusal(call.request_id, failure.code, failure.message)
