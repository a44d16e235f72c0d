"""A streaming call of grpc.aio with its endings made plain: frames, None at the end, or a SwarmError that says why."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc

from swarm.errors import LocalProtocolError, SessionLost, SwarmError
from swarm.rpc.status import Ending

# What grpc.aio says of a call whose write failed, for as long as the status that the server sent is still on its way.
_STATUS_PENDING = "Internal error from Core"
_STATUS_WAIT_S = 1.0


class Stream:
    """explain: turns the way a call ended into the error to raise.

    Being cancelled while waiting in read or write cancels the call.
    """

    def __init__(self, call: Any, explain: Callable[[Ending], SwarmError]) -> None:
        self._call = call
        self._explain = explain
        self._cancelled = False
        self._done_writing = False

    async def write(self, frame: bytes) -> None:
        """Raises: the error that ended the call, SessionLost when it ended without one, LocalProtocolError."""
        if self._cancelled or self._done_writing:
            raise LocalProtocolError("a frame was sent into a call that this side had ended")
        try:
            await self._call.write(frame)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            raise await self._why() from None
        except asyncio.CancelledError:
            if self._ended_here():
                raise LocalProtocolError("a call was cancelled while a frame was sent into it") from None
            raise

    async def read(self) -> bytes | None:
        """The next frame; None at the end, and once this side has cancelled. Raises: the error that ended the call."""
        try:
            frame = await self._call.read()
        except grpc.aio.AioRpcError:
            if self._cancelled:
                return None
            raise await self._why() from None
        except asyncio.CancelledError:
            if self._ended_here():
                return None
            raise
        return None if frame is grpc.aio.EOF else frame

    async def done_writing(self) -> None:
        """Half-close; does nothing on a call that has ended."""
        self._done_writing = True
        if not self._cancelled:
            await self._call.done_writing()

    def cancel(self) -> None:
        self._cancelled = True
        self._call.cancel()

    def _ended_here(self) -> bool:
        """A CancelledError means our own `cancel`, and not that the task which waits here is being cancelled."""
        task = asyncio.current_task()
        return self._cancelled and (task is None or not task.cancelling())

    async def _why(self) -> SwarmError:
        ending = await self._ending()
        deadline = asyncio.get_running_loop().time() + _STATUS_WAIT_S
        while ending.details == _STATUS_PENDING and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.005)
            ending = await self._ending()
        if ending.code is grpc.StatusCode.OK:
            return SessionLost("the other node ended the session before this one did; replay it elsewhere")
        return self._explain(ending)

    async def _ending(self) -> Ending:
        return Ending(
            await self._call.code(), await self._call.details() or "", dict(await self._call.trailing_metadata() or ())
        )
