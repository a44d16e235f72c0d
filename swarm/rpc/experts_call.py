"""The client's end of one Experts.Apply stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from swarm.errors import RemoteProtocolError
from swarm.messages import ExpertAnswer, ExpertCall, ExpertOpen, ExpertRefusal
from swarm.rpc.stream import Stream
from swarm.wire import decode_expert_reply, encode_expert_request


class ExpertsCall:
    """Calls to one host of experts, many at a time. The Open goes out with the first of them.

    One task may send while another reads replies; cancelling either while it waits here ends the stream.
    """

    def __init__(self, stream: Stream, opening: ExpertOpen) -> None:
        self._stream = stream
        self._opening: ExpertOpen | None = opening
        self._writing = asyncio.Lock()

    async def send(self, call: ExpertCall) -> None:
        """Hand one call to the transport; waits while the host does not take more.

        Raises: the error that ended the stream; SessionLost when it ended without one; LocalProtocolError after
        `cancel`.
        """
        async with self._writing:
            if self._opening is not None:
                opening, self._opening = self._opening, None
                await self._stream.write(encode_expert_request(opening))
            await self._stream.write(encode_expert_request(call))

    async def replies(self) -> AsyncIterator[ExpertAnswer | ExpertRefusal]:
        """What comes back, in any order, until the host or `cancel` ends the stream. Raises: what ended it."""
        while (frame := await self._stream.read()) is not None:
            try:
                reply = decode_expert_reply(frame)
            except RemoteProtocolError:
                self.cancel()
                raise
            yield reply

    def cancel(self) -> None:
        """End the stream now, at both ends: `replies` ends, `send` raises LocalProtocolError."""
        self._stream.cancel()
