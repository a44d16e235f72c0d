"""The hop behind this one, for one epoch of one session: opened, fed what it lacks, sent what it needs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

from swarm.errors import DeadlineExceeded, SessionLost, SwarmError
from swarm.messages import Failure, Open, Opened, Rows, Step
from swarm.pages import n_pages_completed
from swarm.rpc import Dialer, RunCall, error_to_failure

OPEN_TIMEOUT_S = 5.0
"""How long each hop may take to open a session, those behind it not counted: the one before it says who was late."""


class HopFault(Exception):
    """What a hop says last. resumable: this stage is not to blame, and a later epoch may go on with what it cached."""

    def __init__(self, failure: Failure, resumable: bool) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.resumable = resumable


class NextHop:
    """Every method raises HopFault, and after that only `cancel` is of use."""

    def __init__(self, opening: Open, dialer: Dialer) -> None:
        self._opening = replace(opening, hop_idx=opening.hop_idx + 1)
        self._hop = opening.hops[opening.hop_idx + 1]
        self._dialer = dialer
        self._call: RunCall | None = None
        self._replies: AsyncIterator[Opened | Failure] | None = None
        self._begins_at = 0  # what it has cached; positions before are not sent, until one is that it lacks
        self._position = 0  # of the step to come

    async def open(self) -> Opened:
        hops_left = len(self._opening.hops) - self._opening.hop_idx
        timeout_s = OPEN_TIMEOUT_S * hops_left
        try:
            async with asyncio.timeout(timeout_s):
                connection = await self._dialer.connect(self._hop.address, self._hop.node_id)
                self._call = connection.run(self._opening)
                self._replies = self._call.replies()
                first = await anext(self._replies, None)
        except TimeoutError:
            raise self._fault(DeadlineExceeded(f"it did not open the session within {timeout_s:g} s")) from None
        except SwarmError as error:
            raise self._fault(error) from error
        if first is None:
            raise self._fault(SessionLost("the next hop ended the session before it opened it"))
        if isinstance(first, Failure):
            raise HopFault(first, resumable=True)
        self._begins_at = first.cached
        return first

    def begin(self, position: int) -> None:
        """The first step that this stage computes is due at position."""
        self._position = position

    async def send(self, step: Step) -> None:
        """Send a step on, but for the rows that the next hop has already."""
        if step.position != self._position:
            self._begins_at = 0  # rewound: whatever comes now is new
        self._position = step.position + step.n_rows
        onward = beyond(step, self._begins_at, in_same_steps=not self._opening.profile.is_chunk_invariant)
        if onward is not None:
            await self.feed(onward)

    async def feed(self, step: Step) -> None:
        assert self._call is not None
        try:
            await self._call.send(step)
        except SwarmError as error:
            raise self._fault(error) from error

    async def watch(self) -> None:
        """Wait for the end of the call: its last words, or SessionLost when it has none."""
        assert self._replies is not None
        try:
            async for reply in self._replies:
                if isinstance(reply, Failure):
                    raise HopFault(reply, resumable=True)
        except SwarmError as error:
            raise self._fault(error) from error
        raise self._fault(SessionLost("the next hop ended the session"))

    async def leave(self) -> None:
        """Nobody comes back to this session. The hops behind end it, and then the call."""
        assert self._call is not None
        await self._call.leave()

    def cancel(self) -> None:
        """End the call now: the hops behind keep what they cached for a while, unless they were left."""
        if self._call is not None:
            self._call.cancel()

    def _fault(self, error: SwarmError) -> HopFault:
        """The next hop is at fault. It may only have vanished, which for the session is being lost there."""
        failure = error_to_failure(error, self._opening.hop_idx, self._hop.node_id)
        return HopFault(failure, resumable=True)


def beyond(step: Step, position: int, *, in_same_steps: bool) -> Step | None:
    """The part of a step that lies behind position; None when nothing does. in_same_steps: a step stays whole."""
    end = step.position + step.n_rows
    if end <= position:
        return None
    if step.position >= position or in_same_steps:
        return step
    rows = step.payload
    assert isinstance(rows, Rows)
    n_rows = end - position
    row_bytes = len(rows.data) // rows.n_rows
    n_pages = n_pages_completed(position, n_rows) if step.page_hashes else 0
    return replace(
        step,
        position=position,
        payload=Rows(n_rows, rows.dtype, memoryview(rows.data)[-n_rows * row_bytes :]),
        n_logit_rows=min(step.n_logit_rows, n_rows),
        page_hashes=step.page_hashes[len(step.page_hashes) - n_pages :],
    )
