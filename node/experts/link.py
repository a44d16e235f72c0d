"""One host of experts as seen from here: a stream that stays open, the calls on it, and how long they take."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from node.experts.directory import Host
from node.experts.pace import Pace
from swarm.errors import NodeUnreachable, RemoteProtocolError, SwarmError
from swarm.messages import ExpertAnswer, ExpertCall, ExpertOpen, ExpertRefusal, Failure
from swarm.rpc import Dialer, ExpertsCall, failure_to_error

Reply = ExpertAnswer | SwarmError
"""What comes of a call: its answer, or the error that came instead."""


@dataclass(slots=True, eq=False)
class _Asked:
    call: ExpertCall
    then: Callable[[Reply], None]
    sent_s: float = 0.0


class Link:
    """Connects with the first call, and anew with the first one after it broke. Use within one event loop."""

    def __init__(self, dialer: Dialer, host: Host, opening: ExpertOpen) -> None:
        self.host = host
        self.pace = Pace()
        self.is_up = False
        self.is_there = False
        """Whether it was met where it is said to be, and not lost since."""
        self._dialer = dialer
        self._opening = opening
        self._outgoing: asyncio.Queue[ExpertCall] = asyncio.Queue()
        self._asked: dict[int, _Asked] = {}
        self._running: asyncio.Task[None] | None = None
        self._next_id = 0

    @property
    def n_asked(self) -> int:
        """Calls without an answer so far."""
        return len(self._asked)

    def new_id(self) -> int:
        self._next_id += 1
        return self._next_id

    async def meet(self) -> None:
        """Find out whether it is there, without asking for anything. Raises: NodeUnreachable, and whatever says no."""
        await self._dialer.connect(self.host.address, self.host.node_id)
        self.is_there = True

    def cost_s(self, n_rows: int) -> float:
        """What an answer is likely to take: the usual time, longer for what was asked for already."""
        return self.pace.expect_s(n_rows) * (1 + len(self._asked) / 4)

    def ask(self, call: ExpertCall, then: Callable[[Reply], None]) -> None:
        """Send it as soon as may be; `then` is called once with what comes of it. Its id is new_id()'s."""
        self._asked[call.request_id] = _Asked(call, then)
        self._outgoing.put_nowait(call)
        if self._running is None:
            self._running = asyncio.create_task(self._run())

    def forget(self, request_id: int) -> None:
        """Nobody waits for that one any more."""
        self._asked.pop(request_id, None)

    async def close(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _run(self) -> None:
        """The stream's life; what was asked on it when it ends has failed."""
        error: SwarmError = NodeUnreachable(f"the stream of experts to {self.host.address} was closed")
        try:
            connection = await self._dialer.connect(self.host.address, self.host.node_id)
            stream = connection.apply_experts(self._opening)
            self.is_up = self.is_there = True
            try:
                await self._talk(stream)
            finally:
                stream.cancel()
        except SwarmError as ended:
            error = ended
        finally:
            self.is_up = self.is_there = False
            self._running = None
            self._outgoing = asyncio.Queue()
            failed, self._asked = self._asked, {}
            for asked in failed.values():
                asked.then(error)

    async def _talk(self, stream: ExpertsCall) -> None:
        writing = asyncio.create_task(self._write(stream))
        try:
            async for reply in stream.replies():
                self._take(reply)
            if writing.done() and not writing.cancelled():
                writing.result()  # raises why nothing more came
        finally:
            writing.cancel()
            with contextlib.suppress(asyncio.CancelledError, SwarmError):
                await writing

    async def _write(self, stream: ExpertsCall) -> None:
        try:
            while True:
                call = await self._outgoing.get()
                if asked := self._asked.get(call.request_id):
                    asked.sent_s = time.monotonic()
                    await stream.send(call)
        finally:
            stream.cancel()

    def _take(self, reply: ExpertAnswer | ExpertRefusal) -> None:
        asked = self._asked.pop(reply.request_id, None)
        if asked is None:
            return  # somebody else was quicker, or nobody waits any more
        if isinstance(reply, ExpertRefusal):
            asked.then(failure_to_error(Failure(0, self.host.node_id, reply.code, reply.message)))
        elif reply.rows.n_rows != asked.call.n_answers or reply.rows.dtype != asked.call.rows.dtype:
            said = f"{reply.rows.n_rows} rows of {reply.rows.dtype} answer a call of {asked.call.n_answers}"
            asked.then(RemoteProtocolError(f"{said} in {asked.call.rows.dtype}"))
        else:
            self.pace.note(asked.call.n_answers, time.monotonic() - asked.sent_s)
            asked.then(reply)
