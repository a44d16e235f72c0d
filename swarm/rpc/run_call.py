"""The client's end of one Stage.Run stream."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import TracebackType

from swarm.errors import RemoteProtocolError, SwarmError
from swarm.messages import Failure, Leave, Open, Opened, Step
from swarm.pages import PAGE
from swarm.rpc.stream import Stream
from swarm.wire import decode_run_reply, encode_run_request


class RunCall:
    """One session's stream to its stage. The Open goes out with the first `send`, or the first of `replies`.

    One task may send while another reads replies. Cancelling either task while it waits here cancels the whole call, as
    does leaving the `async with`: unless `leave` came first, the stage then keeps what it cached for a while.
    """

    def __init__(self, stream: Stream, opening: Open) -> None:
        self._stream = stream
        self._opening: Open | None = opening
        self._most_cached = max(len(opening.page_hashes) * PAGE, opening.fed_positions)
        self._writing = asyncio.Lock()

    async def send(self, step: Step) -> None:
        """Hand one Step to the transport; waits while the stage's side does not take more.

        Raises: the error that ended the call; SessionLost when it ended without one; LocalProtocolError after `cancel`
        or `leave`.
        """
        async with self._writing:
            await self._write_open()
            await self._stream.write(encode_run_request(step))

    async def replies(self) -> AsyncIterator[Opened | Failure]:
        """What comes back, until the stage ends the call or `cancel` does. Raises: the error that ended the call."""
        async with self._writing:
            with contextlib.suppress(SwarmError):  # reading says why
                await self._write_open()
        while (frame := await self._stream.read()) is not None:
            try:
                reply = decode_run_reply(frame)
                self._check(reply)
            except RemoteProtocolError:
                self.cancel()
                raise
            yield reply

    async def leave(self) -> None:
        """No more Steps: the stage ends the session, and then the call. Does nothing on a call that has ended."""
        async with self._writing:
            with contextlib.suppress(SwarmError):
                await self._write_open()
                await self._stream.write(encode_run_request(Leave()))
            await self._stream.done_writing()

    def cancel(self) -> None:
        """End the call now, at both ends: `replies` ends, `send` raises LocalProtocolError."""
        self._stream.cancel()

    async def __aenter__(self) -> RunCall:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cancel()

    def _check(self, reply: Opened | Failure) -> None:
        if isinstance(reply, Opened) and max(reply.cached, reply.answered) > self._most_cached:
            most = max(reply.cached, reply.answered)
            raise RemoteProtocolError(f"{most} positions came cached, and {self._most_cached} were offered")

    async def _write_open(self) -> None:
        if self._opening is not None:
            opening, self._opening = self._opening, None
            await self._stream.write(encode_run_request(opening))
