"""One epoch of a session on one route: opened, stepped, closed. Any fault ends it and names the hop."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from types import TracebackType

from swarm.errors import DeadlineExceeded, NodeUnreachable, RemoteProtocolError, SessionLost, SwarmError
from swarm.messages import Failure, Open, Opened, Result, Step
from swarm.rpc import Connection, Dialer, RunCall, failure_to_error
from swarm.terms import NodeId, short_id

CHUNK_TOKENS = 256
"""Prompt tokens in one step: large enough to keep matrix units busy, small enough to keep the hops of a route all at
work.
"""

MAX_CHUNKS_IN_FLIGHT = 4

LEAVE_TIMEOUT_S = 1.0
"""How long a route may take to end the session that is left; a stage that is still at work then ends it later."""

DEATH_NOTICE_S = 0.5
"""How long to wait, once a stream of the session broke, for the Failure that says which hop is at fault."""


SILENCE_NOTICE_S = 3.5
"""The same where the last stage lives and says that the session ended there: the hop before it, or one further up, fell
silent, and whoever calls that one notices within the time of a ping (swarm/rpc/config.py), sooner or later than others.
"""


class HopFailed(Exception):
    """A route broke. error: what a hop said, or what its silence was. node_ids: the hop at fault; the whole route when
    it fell silent and nobody said who.
    """

    def __init__(self, node_ids: NodeId | Sequence[NodeId], error: SwarmError) -> None:
        self.node_ids = (node_ids,) if isinstance(node_ids, str) else tuple(node_ids)
        self.error = error
        super().__init__(f"{self.names}: {error.message}")

    @property
    def names(self) -> str:
        return f"node {' or '.join(map(short_id, self.node_ids))}"

    @property
    def loss(self) -> tuple[str, str]:
        """That the node was lost, and why, in words that do not name it again."""
        ids = "|".join(map(short_id, self.node_ids))
        why = re.sub(rf"^node (?:{ids})(?: \(hop \d+\))?: ", "", self.error.message)
        why = re.sub(rf"\bnode (?:{ids})\w*(?: at [^\s,;]+)?", "it", why)
        return f"{self.names} was lost", why


class RouteSession:
    """Async context manager: open on enter, left on exit: closed on every hop then, unless it broke, in which case its
    stages keep what they cached for the next epoch.

    name_pages: (position, n_rows) of a step -> the hashes of the pages that it fills up, or none of them.
    Shapes of trouble: every method raises HopFailed, and after that only leaving the context is of use.
    """

    def __init__(
        self, dialer: Dialer, opening: Open, name_pages: Callable[[int, int], tuple[bytes, ...]] = lambda *_: (), *,
        open_timeout_s: float = 15.0, step_timeout_s: float = 120.0,
    ) -> None:  # fmt: skip
        self._dialer = dialer
        self._open = opening
        self._hops = opening.hops
        self._name_pages = name_pages
        self.n_cached_at_open = 0
        self._n_sent = 0
        self._n_answered = 0  # positions that the last stage has reached
        self._open_timeout_s = open_timeout_s
        self._step_timeout_s = step_timeout_s
        self._call: RunCall | None = None
        self._results: AsyncIterator[Result] | None = None
        self._fault: asyncio.Future[HopFailed] = asyncio.get_running_loop().create_future()
        self._watcher: asyncio.Task[None] | None = None

    async def __aenter__(self) -> RouteSession:
        last = self._hops[-1]
        try:
            async with asyncio.timeout(self._open_timeout_s):
                opening = asyncio.create_task(self._open_route())
                try:
                    connection = await self._dial(last.node_id, len(self._hops) - 1)
                    self._results = connection.results(self._open.session_id, self._open.epoch)
                    await opening
                finally:
                    opening.cancel()
                    await asyncio.gather(opening, return_exceptions=True)
        except TimeoutError:
            await self._close(leaves=False)
            raise HopFailed(
                self._everybody, DeadlineExceeded(f"the route did not open within {self._open_timeout_s:g} s")
            ) from None
        except BaseException:
            await self._close(leaves=False)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close(leaves=not isinstance(error, HopFailed))

    async def step(self, chunks: Sequence[Sequence[int]], position: int, allowed: bytes = b"") -> Result:
        """Feed chunks of ids, the first at position; the logits of the last id, of the allowed ids only where a mask
        says so. Raises: HopFailed.
        """
        ends = [position + n for n in itertools.accumulate(map(len, chunks))]
        if position < self._n_sent:  # taking back what was fed, and its answers
            self._n_answered = min(self._n_answered, position)
        self._n_sent = ends[-1]
        for n_sent, chunk in enumerate(chunks):
            while sum(end > self._n_answered for end in ends[:n_sent]) >= MAX_CHUNKS_IN_FLIGHT:
                await self._next_result(ends[-1])
            is_last = n_sent == len(chunks) - 1
            at = ends[n_sent] - len(chunk)
            step = Step(self._open.epoch, at, tuple(chunk), n_logit_rows=int(is_last))
            mask = allowed if is_last else b""
            await self._send(replace(step, allowed=mask, page_hashes=self._name_pages(at, len(chunk))))
        while True:
            result = await self._next_result(ends[-1])
            if result.position == ends[-1]:
                break
        if len(result.rows) != 1:
            raise HopFailed(self._hops[-1].node_id, RemoteProtocolError("the last stage returned no logits"))
        return result

    # -- streams -------------------------------------------------------------------------------------------------

    async def _dial(self, node_id: NodeId, hop_idx: int) -> Connection:
        try:
            return await self._dialer.connect(self._hops[hop_idx].address, node_id)
        except SwarmError as error:
            raise HopFailed(node_id, error) from error

    async def _open_route(self) -> None:
        first = self._hops[0]
        self._call = (await self._dial(first.node_id, 0)).run(self._open)
        replies = self._call.replies()
        try:
            async for reply in replies:
                if isinstance(reply, Failure):
                    raise self._blame(reply)
                self.n_cached_at_open, self._n_answered = reply.cached, reply.answered
                break
            else:
                raise HopFailed(first.node_id, SessionLost("the first stage ended the session before it opened it"))
        except SwarmError as error:
            raise HopFailed(first.node_id, error) from error
        self._watcher = asyncio.create_task(self._watch(replies))

    async def _watch(self, replies: AsyncIterator[Opened | Failure]) -> None:
        first = self._hops[0]
        try:
            async for reply in replies:
                if isinstance(reply, Failure):
                    self._break(self._blame(reply))
                    return
            self._break(HopFailed(first.node_id, SessionLost("the first stage ended the session")))
        except SwarmError as error:
            self._break(HopFailed(first.node_id, error))

    async def _send(self, step: Step) -> None:
        assert self._call is not None
        try:
            await self._call.send(step)
        except SwarmError as error:
            await self._raise_fault(HopFailed(self._hops[0].node_id, error))

    async def _next_result(self, due: int) -> Result:
        """The next one, of a step that ends at `due` or before: ours, or of a hop that feeds those behind it."""
        assert self._results is not None
        last = self._hops[-1]
        reading = asyncio.ensure_future(anext(self._results))
        try:
            await asyncio.wait(
                (reading, self._fault), timeout=self._step_timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if not reading.done():
                late = DeadlineExceeded(f"no answer within {self._step_timeout_s:g} s")
                raise self._fault.result() if self._fault.done() else HopFailed(self._everybody, late)
            result = reading.result()
        except StopAsyncIteration:
            await self._raise_fault(HopFailed(last.node_id, SessionLost("the last stage ended the results")))
        except SwarmError as error:
            await self._raise_fault(HopFailed(last.node_id, error))
        finally:
            if not reading.done():
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
        if result.epoch != self._open.epoch or not self._n_answered < result.position <= due:
            problem = f"a result for position {result.position} of epoch {result.epoch} came where {due} was due"
            raise HopFailed(last.node_id, RemoteProtocolError(problem))
        self._n_answered = result.position
        return result

    @property
    def _everybody(self) -> tuple[NodeId, ...]:
        return tuple(hop.node_id for hop in self._hops)

    def _blame(self, failure: Failure) -> HopFailed:
        """The hop that a Failure accuses, if it is one of the route; else the one that told us so."""
        on_route = {hop.node_id for hop in self._hops}
        node_id = failure.node_id if failure.node_id in on_route else self._hops[0].node_id
        return HopFailed(node_id, failure_to_error(failure))

    def _break(self, fault: HopFailed) -> None:
        if not self._fault.done():
            self._fault.set_result(fault)

    async def _raise_fault(self, seen: HopFailed) -> None:
        """Raise what the route says is at fault, if it says so soon; a broken stream alone only shows where it was
        noticed.
        """
        told_to_end = isinstance(seen.error, SessionLost)
        await asyncio.wait((self._fault,), timeout=SILENCE_NOTICE_S if told_to_end else DEATH_NOTICE_S)
        told = self._fault.result() if self._fault.done() else None
        if told is not None and not (isinstance(told.error, SessionLost) and isinstance(seen.error, NodeUnreachable)):
            raise told
        raise seen

    async def _close(self, *, leaves: bool) -> None:
        """leaves: tell the hops that nobody comes back; else they keep what they cached for a while."""
        try:
            if leaves and self._call is not None and self._watcher is not None and not self._fault.done():
                await self._call.leave()
                await asyncio.wait((self._watcher,), timeout=LEAVE_TIMEOUT_S)
        finally:
            if self._watcher is not None:
                self._watcher.cancel()
                await asyncio.gather(self._watcher, return_exceptions=True)
            if self._call is not None:
                self._call.cancel()
            closing = getattr(self._results, "aclose", None)
            if closing is not None:
                await closing()
