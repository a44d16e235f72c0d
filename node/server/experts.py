"""The Experts service: streams of calls, each answered or refused by itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable

from node.experts import ExpertHost
from swarm.errors import RemoteProtocolError, SwarmError
from swarm.messages import ExpertAnswer, ExpertCall, ExpertOpen, ExpertRefusal
from swarm.rpc import error_to_failure
from swarm.terms import Infohash, NodeId, Profile

_log = logging.getLogger(__name__)

MAX_CALLS_AT_ONCE = 64
"""Of one stream, from when they are read until their answers are written: what comes beyond waits unread, and stops its
sender."""

Put = Callable[[ExpertAnswer | ExpertRefusal], None]


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
        replies: asyncio.Queue[tuple[int, ExpertAnswer | ExpertRefusal] | None] = asyncio.Queue()
        room = asyncio.Semaphore(MAX_CALLS_AT_ONCE)
        begun: dict[int, Callable[[], None]] = {}  # by the call's number: what ends it
        n_begun = n_replied = 0

        def begin(call: ExpertCall) -> None:
            nonlocal n_begun
            n_begun += 1
            nth = n_begun

            if end := self._begin(call, caller, lambda reply: replies.put_nowait((nth, reply))):
                begun[nth] = end

        async def read() -> None:
            try:
                await room.acquire()
                async for call in calls:
                    begin(call)
                    await room.acquire()
            finally:
                replies.put_nowait(None)

        reading = asyncio.create_task(read())
        try:
            while n_replied < n_begun or not reading.done():
                numbered = await replies.get()
                if numbered is None:
                    await reading  # raises what was wrong with a frame
                    continue
                n_replied += 1
                nth, reply = numbered
                yield reply
                if end := begun.pop(nth, None):  # not before: what its caller does not take counts as the caller's
                    end()
                room.release()
            await reading  # also where it ended while the last reply was on its way out
        finally:
            reading.cancel()
            for end in begun.values():
                end()
            await asyncio.gather(reading, return_exceptions=True)

    def _begin(self, call: ExpertCall, caller: NodeId, put: Put) -> Callable[[], None] | None:
        """`put` is called once with the reply: every call gets one, whatever becomes of it. -> what ends the call; None
        where it was refused at once.
        """

        def then(reply: ExpertAnswer | BaseException) -> None:
            put(reply if isinstance(reply, ExpertAnswer) else self._refusal(call, reply))

        try:
            return self._host.begin(call, caller, then)
        except Exception as error:
            then(error)
            return None

    def _refusal(self, call: ExpertCall, error: BaseException) -> ExpertRefusal:
        if not isinstance(error, SwarmError):
            _log.error("a call of experts failed", exc_info=error)
        failure = error_to_failure(error, 0, self._node_id)
        return ExpertRefusal(call.request_id, failure.code, failure.message)
