"""The Stage service: opens a session here and on the hops behind, and walks its steps down the route."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace

from node.server.next_hop import HopFault, NextHop
from node.server.outboxes import Outbox, Outboxes
from node.server.scope import prefix_scope
from node.stage import Prefix, Stage, StageSession, StepOutput
from swarm.errors import NodeUnreachable, RemoteProtocolError, SessionLost, StaleEpoch, SwarmError
from swarm.messages import Failure, HopTime, Open, Opened, Result, Rows, Step
from swarm.rpc import Dialer, error_to_failure
from swarm.terms import Infohash, NodeId, Profile, SessionId

IDLE_TIMEOUT_S = 120.0
"""How long a session may go without a step. A client that comes back later replays it, for others wait for its room."""

ORPHAN_S = 15.0
"""How long a session whose stream broke is kept for its next epoch, where nobody else needs its room: long enough to
find the fault and another node, and for most of those that only wait for one to come.
"""


LEAVE_TIMEOUT_S = 5.0
"""How long the hops behind may take to end a session that was left. A stage that takes longer keeps it for a while."""

LAST_WORDS_S = 0.5
"""How long to wait, once a send to the next hop failed, for what came back from it."""


class SessionHandler:
    """Serves the sessions of one release on one Stage."""

    def __init__(
        self, node_id: NodeId, release: Infohash, profile: Profile, stage: Stage, dialer: Dialer, *,
        orphan_s: float = ORPHAN_S,
    ) -> None:  # fmt: skip
        self._node_id = node_id
        self._release = release
        self._profile = profile
        self._stage = stage
        self._dialer = dialer
        self._orphan_s = orphan_s
        self._outboxes = Outboxes()

    async def run(
        self, opening: Open, steps: AsyncIterator[Step], caller: NodeId
    ) -> AsyncGenerator[Opened | Failure, None]:
        """One hop of one session: from Open to the end of the stream. A Failure is the last thing said.

        When its caller leaves, the session ends here and behind. When a stream of it breaks, here or behind, what is
        cached waits for a later epoch.
        """
        self._check_open(opening, caller)
        session = self._open(opening)
        begins_at = session.cached_positions  # a later epoch may have the session by the time that the next hop answers
        resumable = True
        walk = self._walk if opening.hop_idx + 1 < len(opening.hops) else self._arrive
        try:
            async with contextlib.aclosing(walk(opening, session, steps, begins_at)) as replies:
                while (opened := await self._unless_evicted(opening, session, replies)) is not None:
                    yield opened
            resumable = False
        except HopFault as fault:
            resumable = fault.resumable
            yield fault.failure
        except NodeUnreachable:
            raise  # the caller is gone
        except SwarmError:
            resumable = False
            raise
        finally:
            self._end(opening, session, resumable)

    def results(self, session_id: SessionId, epoch: int, caller: NodeId) -> AsyncIterator[Result]:
        """What the last stage computes for the client that opened the session.

        Raises: SessionLost when no such session of this caller is, or stays, open here.
        """
        return self._outboxes.read(session_id, epoch, caller)

    # -- one hop -------------------------------------------------------------------------------------------------

    async def _walk(
        self, opening: Open, session: StageSession, steps: AsyncIterator[Step], begins_at: int
    ) -> AsyncGenerator[Opened, None]:
        """Open the hop behind, feed it what it lacks, compute each step and send it on, until the caller leaves.

        Raises: HopFault, and what reading the steps raises.
        """
        next_hop = NextHop(opening, self._dialer)
        try:
            behind = await next_hop.open()
            next_hop.begin(begins_at)
            yield Opened(opening.epoch, begins_at, behind.answered)
            lacks = range(behind.cached, begins_at)
            pump = asyncio.create_task(self._pump(opening, session, steps, next_hop, lacks))
            watch = asyncio.create_task(next_hop.watch())
            try:
                await _first_fault(pump, watch)
                self._stage.close_epoch(session, opening.epoch)
                await next_hop.leave()
                await asyncio.wait((watch,), timeout=LEAVE_TIMEOUT_S)
            finally:
                for task in (pump, watch):
                    task.cancel()
                await asyncio.gather(pump, watch, return_exceptions=True)
        finally:
            next_hop.cancel()

    async def _unless_evicted(
        self, opening: Open, session: StageSession, replies: AsyncGenerator[Opened, None]
    ) -> Opened | None:
        """The next of the replies, None at their end. Raises: HopFault as soon as the stage sends the session away."""
        loop = asyncio.get_running_loop()
        evicted: asyncio.Future[SwarmError] = loop.create_future()

        def settle(why: SwarmError) -> None:
            if not evicted.done():
                evicted.set_result(why)

        def tell(why: SwarmError) -> None:
            loop.call_soon_threadsafe(settle, why)

        session.on_evicted(opening.epoch, tell)
        replying = asyncio.ensure_future(anext(replies, None))
        try:
            await asyncio.wait((replying, evicted), return_when=asyncio.FIRST_COMPLETED)
            if evicted.done():
                raise self._fault(opening, evicted.result())
            return replying.result()
        finally:
            evicted.cancel()
            replying.cancel()
            await asyncio.gather(replying, return_exceptions=True)

    async def _pump(
        self, opening: Open, session: StageSession, steps: AsyncIterator[Step], next_hop: NextHop, lacks: range
    ) -> None:
        if lacks:
            await self._feed(opening, session, next_hop, lacks)
        async for step in _in_time(steps):
            output = await self._compute(opening, session, step)
            assert isinstance(output.payload, Rows)
            page_hashes = step.page_hashes if session.scope else ()
            timed = self._timed(step, output)
            await next_hop.send(replace(step, payload=output.payload, hop_times=timed, page_hashes=page_hashes))

    async def _feed(self, opening: Open, session: StageSession, next_hop: NextHop, lacks: range) -> None:
        """The positions that the next hop lacks, of those that this one kept before this epoch."""
        in_same_steps = not opening.profile.is_chunk_invariant
        try:
            for step in self._stage.kept(session, opening.epoch, lacks.start, lacks.stop, in_same_steps=in_same_steps):
                await next_hop.feed(step)
        except SwarmError as error:
            raise self._fault(opening, error) from error

    async def _arrive(
        self, opening: Open, session: StageSession, steps: AsyncIterator[Step], begins_at: int
    ) -> AsyncGenerator[Opened, None]:
        """On the last hop: compute each step and put its result where the client reads it, until the caller leaves.

        Raises: HopFault, and what reading the steps raises.
        """
        outbox: Outbox = await self._outboxes.open(opening)
        try:
            yield Opened(opening.epoch, begins_at, begins_at)
            async for step in _in_time(steps):
                output = await self._compute(opening, session, step)
                assert not isinstance(output.payload, Rows)
                await outbox.results.put(Result(step.epoch, output.position, output.payload, self._timed(step, output)))
        finally:
            self._outboxes.close(outbox)

    async def _compute(self, opening: Open, session: StageSession, step: Step) -> StepOutput:
        try:
            if step.epoch != opening.epoch:
                raise StaleEpoch(f"a step of epoch {step.epoch} came on the stream of epoch {opening.epoch}")
            return await self._stage.step(session, step)
        except SwarmError as error:
            raise self._fault(opening, error) from error

    def _fault(self, opening: Open, error: SwarmError) -> HopFault:
        return HopFault(error_to_failure(error, opening.hop_idx, self._node_id), resumable=False)

    def _timed(self, step: Step, output: StepOutput) -> tuple[HopTime, ...]:
        return (*step.hop_times, HopTime(self._node_id, output.queue_s, output.compute_s))

    # -- beginning and end ---------------------------------------------------------------------------------------

    def _open(self, opening: Open) -> StageSession:
        span = opening.hops[opening.hop_idx].span
        return self._stage.open(
            (opening.client_id, opening.session_id, span.start),
            opening.epoch,
            span,
            opening.max_positions,
            opening.n_top,
            Prefix(prefix_scope(opening), opening.page_hashes),
            len(opening.hops),
            opening.fed_positions,
            opening.known_positions,
        )

    def _end(self, opening: Open, session: StageSession, resumable: bool) -> None:
        if not resumable:
            self._stage.close_epoch(session, opening.epoch)
        elif self._stage.abandon(session, opening.epoch):
            loop = asyncio.get_running_loop()
            loop.call_later(self._orphan_s, self._stage.close_epoch, session, opening.epoch)

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


async def _first_fault(pump: asyncio.Task[None], watch: asyncio.Task[None]) -> None:
    """Wait until the pump has nothing more to do. Raises: what ended the pump or the watch first; but where a send
    failed, what came back up the route, which may know of a hop further behind.
    """
    await asyncio.wait((pump, watch), return_when=asyncio.FIRST_COMPLETED)
    if not pump.done():
        await watch
    error = pump.exception()
    if isinstance(error, HopFault) and error.resumable:
        await asyncio.wait((watch,), timeout=LAST_WORDS_S)
        if watch.done():
            await watch
    await pump


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
