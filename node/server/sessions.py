"""The Stage service: opens a session here and on the hops behind, and walks its steps down the route."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

from node.server.scope import prefix_scope
from node.stage import Prefix, Stage, StageSession, StepOutput
from swarm.errors import RemoteProtocolError, SessionLost, SwarmError
from swarm.messages import Failure, HopTime, Open, Opened, Result, Rows, Step
from swarm.pages import PAGE
from swarm.rpc import Dialer, RunCall, error_to_failure
from swarm.terms import Infohash, NodeId, Profile, SessionId

RESULTS_WAIT_S = 10.0
"""How long a client may ask for the results of a session before its Open has come down the route."""

IDLE_TIMEOUT_S = 120.0
"""How long a session may go without a step. A client that comes back later replays it, for others wait for its room."""

MAX_QUEUED_RESULTS = 64
"""Results that wait for a client that does not read; then the route stands still behind it."""


@dataclass(slots=True, eq=False)
class _Outbox:
    """Results of a session whose last stage is here."""

    client_id: NodeId
    epoch: int
    results: asyncio.Queue[Result | None] = field(default_factory=lambda: asyncio.Queue(MAX_QUEUED_RESULTS))


class SessionHandler:
    """Serves the sessions of one release on one Stage."""

    def __init__(self, node_id: NodeId, release: Infohash, profile: Profile, stage: Stage, dialer: Dialer) -> None:
        self._node_id = node_id
        self._release = release
        self._profile = profile
        self._stage = stage
        self._dialer = dialer
        self._outboxes: dict[tuple[NodeId, SessionId], _Outbox] = {}  # by client: no other reads or replaces them
        self._opened = asyncio.Condition()

    async def run(
        self, opening: Open, steps: AsyncIterator[Step], caller: NodeId
    ) -> AsyncGenerator[Opened | Failure, None]:
        """One hop of one session: from Open to the end of the stream. A Failure is the last thing said."""
        self._check_open(opening, caller)
        hop = opening.hops[opening.hop_idx]
        session = self._stage.open(
            (opening.client_id, opening.session_id, opening.hop_idx),
            opening.epoch,
            hop.span,
            opening.max_positions,
            opening.n_top,
            Prefix(prefix_scope(opening), opening.page_hashes),
            len(opening.hops),
            opening.known_positions,
        )
        call: RunCall | None = None
        outbox: _Outbox | None = None
        try:
            if opening.hop_idx + 1 < len(opening.hops):
                try:
                    call = await self._open_next(opening, session.cached_positions)
                except SwarmError as error:
                    yield self._failure_of_next(opening, error)
                    return
                replies = call.replies()
                first = await self._first_reply(opening, replies)
                if isinstance(first, Opened):
                    self._stage.adopt(session, first.cached)
                yield first
                if isinstance(first, Failure):
                    return
                failure = await self._until_evicted(
                    opening, session, self._relay(opening, session, steps, call, replies)
                )
            else:
                outbox = await self._register(opening)
                cached = session.cached_positions
                self._stage.adopt(session, cached)
                yield Opened(opening.epoch, cached)
                failure = await self._until_evicted(opening, session, self._deliver(opening, session, steps, outbox))
            if failure is not None:
                yield failure
        finally:
            self._stage.close(session)
            if call is not None:
                call.cancel()
            if outbox is not None:
                self._unregister(opening.session_id, outbox)

    async def results(self, session_id: SessionId, epoch: int, caller: NodeId) -> AsyncIterator[Result]:
        """What the last stage computes for the client that opened the session.

        Raises: SessionLost when no such session of this caller is, or stays, open here.
        """
        outbox = await self._find_outbox(session_id, epoch, caller)
        while True:
            result = await outbox.results.get()
            if result is None:
                if not outbox.results.full():
                    outbox.results.put_nowait(None)  # for whoever else reads this session's results
                raise SessionLost("the session ended on the last stage")
            yield result

    # -- one hop -------------------------------------------------------------------------------------------------

    async def _until_evicted(
        self, opening: Open, session: StageSession, serving: Coroutine[Any, Any, Failure | None]
    ) -> Failure | None:
        """What serving ends with; or, as soon as the stage sends the session away, why."""
        loop = asyncio.get_running_loop()
        evicted: asyncio.Future[SwarmError] = loop.create_future()

        def settle(why: SwarmError) -> None:
            if not evicted.done():
                evicted.set_result(why)

        def tell(why: SwarmError) -> None:
            loop.call_soon_threadsafe(settle, why)

        session.on_evicted(tell)
        served = asyncio.create_task(serving)
        try:
            await asyncio.wait((served, evicted), return_when=asyncio.FIRST_COMPLETED)
            return self._failure(opening, evicted.result()) if evicted.done() else served.result()
        finally:
            served.cancel()
            evicted.cancel()
            await asyncio.gather(served, return_exceptions=True)

    async def _relay(
        self,
        opening: Open,
        session: StageSession,
        steps: AsyncIterator[Step],
        call: RunCall,
        replies: AsyncIterator[Opened | Failure],
    ) -> Failure | None:
        """Compute each step and send it on, until the steps end or the next hop says that it cannot go on."""
        pump = asyncio.create_task(self._pump(opening, session, steps, call))
        watch = asyncio.create_task(self._watch(opening, replies))
        try:
            await asyncio.wait((pump, watch), return_when=asyncio.FIRST_COMPLETED)
            if pump.done() and not pump.cancelled() and pump.exception() is None and pump.result() is None:
                await call.done_sending()  # the client is content: the hops behind end in their own time
                failure = await watch
                return failure if failure.code != SessionLost.__name__ else None
            return pump.result() if pump.done() else watch.result()
        finally:
            for task in (pump, watch):
                task.cancel()
            await asyncio.gather(pump, watch, return_exceptions=True)

    async def _pump(
        self, opening: Open, session: StageSession, steps: AsyncIterator[Step], call: RunCall
    ) -> Failure | None:
        async for step in _in_time(steps):
            try:
                output = await self._stage.step(session, step)
            except SwarmError as error:
                return self._failure(opening, error)
            assert isinstance(output.payload, Rows)
            try:
                await call.send(replace(step, payload=output.payload, hop_times=self._timed(step, output)))
            except SwarmError as error:
                return self._failure_of_next(opening, error)
        return None

    async def _watch(self, opening: Open, replies: AsyncIterator[Opened | Failure]) -> Failure:
        """The next hop's last words; SessionLost when it ends without any."""
        try:
            async for reply in replies:
                if isinstance(reply, Failure):
                    return reply
        except SwarmError as error:
            return self._failure_of_next(opening, error)
        return self._failure_of_next(opening, SessionLost("the next hop ended the session"))

    async def _deliver(
        self, opening: Open, session: StageSession, steps: AsyncIterator[Step], outbox: _Outbox
    ) -> Failure | None:
        """On the last hop: compute each step and put its result where the client reads it, until the steps end."""
        async for step in _in_time(steps):
            try:
                output = await self._stage.step(session, step)
            except SwarmError as error:
                return self._failure(opening, error)
            assert not isinstance(output.payload, Rows)
            await outbox.results.put(Result(step.epoch, output.position, output.payload, self._timed(step, output)))
        return None

    def _timed(self, step: Step, output: StepOutput) -> tuple[HopTime, ...]:
        return (*step.hop_times, HopTime(self._node_id, output.queue_s, output.compute_s))

    # -- the next hop --------------------------------------------------------------------------------------------

    async def _open_next(self, opening: Open, n_cached: int) -> RunCall:
        """Offer the pages that this stage has, and no more: then what comes back is what both have."""
        hop = opening.hops[opening.hop_idx + 1]
        connection = await self._dialer.connect(hop.address, hop.node_id)
        page_hashes = opening.page_hashes[: n_cached // PAGE]
        return connection.run(replace(opening, hop_idx=opening.hop_idx + 1, page_hashes=page_hashes))

    async def _first_reply(self, opening: Open, replies: AsyncIterator[Opened | Failure]) -> Opened | Failure:
        try:
            async for reply in replies:
                return reply
        except SwarmError as error:
            return self._failure_of_next(opening, error)
        return self._failure_of_next(opening, SessionLost("the next hop ended the session before it opened it"))

    def _failure(self, opening: Open, error: SwarmError) -> Failure:
        return error_to_failure(error, opening.hop_idx, self._node_id)

    def _failure_of_next(self, opening: Open, error: SwarmError) -> Failure:
        """The next hop is at fault. It may only have vanished, which for the session is being lost there."""
        hop = opening.hops[opening.hop_idx + 1]
        return error_to_failure(error, opening.hop_idx + 1, hop.node_id)

    # -- checks and registers ------------------------------------------------------------------------------------

    def _check_open(self, opening: Open, caller: NodeId) -> None:
        """Raises: RemoteProtocolError when the route does not lead through this node as the caller claims."""
        if opening.release != self._release:
            raise RemoteProtocolError(f"this node serves release {self._release}, not {opening.release}")
        if opening.hop_idx >= len(opening.hops) or opening.hops[opening.hop_idx].node_id != self._node_id:
            raise RemoteProtocolError("the route does not name this node at this hop")
        expected = opening.client_id if opening.hop_idx == 0 else opening.hops[opening.hop_idx - 1].node_id
        if caller != expected:
            raise RemoteProtocolError("the caller is not the hop before this one")
        if not self._profile.satisfies(opening.profile):
            raise RemoteProtocolError(f"this node computes in profile {self._profile}, not {opening.profile}")
        ends = [0, *(hop.span.end for hop in opening.hops)]
        if (
            any(hop.span.start != end for hop, end in zip(opening.hops, ends, strict=False))
            or ends[-1] != self._stage.args.n_layers
        ):
            raise RemoteProtocolError(
                f"the route's spans do not join up to the {self._stage.args.n_layers} layers of the model"
            )

    async def _register(self, opening: Open) -> _Outbox:
        outbox = _Outbox(opening.client_id, opening.epoch)
        async with self._opened:
            self._outboxes[opening.client_id, opening.session_id] = outbox
            self._opened.notify_all()
        return outbox

    def _unregister(self, session_id: SessionId, outbox: _Outbox) -> None:
        if self._outboxes.get((outbox.client_id, session_id)) is outbox:
            del self._outboxes[outbox.client_id, session_id]
        if outbox.results.full():
            outbox.results.get_nowait()  # the reader is gone or will learn from the sentinel that the session is
        outbox.results.put_nowait(None)

    async def _find_outbox(self, session_id: SessionId, epoch: int, caller: NodeId) -> _Outbox:
        def found() -> _Outbox | None:
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


async def _in_time(steps: AsyncIterator[Step]) -> AsyncIterator[Step]:
    """The steps, until they end. Raises: SessionLost when none came for IDLE_TIMEOUT_S."""
    while True:
        try:
            async with asyncio.timeout(IDLE_TIMEOUT_S):
                step = await anext(steps, None)
        except TimeoutError:
            raise SessionLost(
                f"no step came for {IDLE_TIMEOUT_S:g} s, and others wait; open it again and replay"
            ) from None
        if step is None:
            return
        yield step
