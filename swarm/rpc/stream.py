"""A streaming call of grpc.aio with its endings made plain: frames, None at the end, or a SwarmError that says why."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import grpc

from swarm.errors import LocalProtocolError, SessionLost, SwarmError
from swarm.rpc.status import Ending

# The status that grpc.aio's own write() makes up when it fails, in place of the one that the server sent.
_WRITE_FAILED = "Internal error from Core"

_ENDING_WAIT_S = 1.0
_MAX_UNREAD = 64

T = TypeVar("T")


class Stream:
    """One task reads while another may write; being cancelled while it waits in either cancels the call.

    max_frame_bytes: what may be written at once; gRPC's own refusal would end the call without a reason.
    explain: turns the way a call ended into the error to raise.
    """

    def __init__(self, call: Any, max_frame_bytes: int, explain: Callable[[Ending], SwarmError]) -> None:
        self._call = call
        self._max_frame_bytes = max_frame_bytes
        # Not call.read(): that drops what the server sent before a failed write, the reason for its end included.
        self._frames = aiter(call)
        self._unread: deque[bytes] = deque()
        self._reading = asyncio.Lock()
        self._explain = explain
        self._ending: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._cancelled = False
        self._broken_off: SwarmError | None = None
        self._done_writing = False
        call.add_done_callback(self._note_ending)

    async def write(self, frame: bytes) -> None:
        """Raises: the error that ended the call, SessionLost when it ended without one, LocalProtocolError."""
        if self._cancelled or self._done_writing:
            raise self._broken_off or LocalProtocolError("a frame was sent into a call that this side had ended")
        if len(frame) > self._max_frame_bytes:
            raise LocalProtocolError(
                f"a frame of {len(frame)} bytes is over max_message_bytes; send fewer rows at once"
            )
        try:
            await self._send(frame)
        except (grpc.aio.AioRpcError, grpc.aio.InternalError, asyncio.InvalidStateError):
            if not self._reading.locked():
                await self._read_ahead()
            raise await self._why() or _lost() from None
        except asyncio.CancelledError:
            if self._cancelled_alone():
                raise self._broken_off or LocalProtocolError("a call was cancelled during a send") from None
            self._cancelled = True
            raise

    async def read(self) -> bytes | None:
        """The next frame; None at the end, and once this side has cancelled. Raises: the error that ended the call."""
        try:
            async with self._reading:
                return self._unread.popleft() if self._unread else await anext(self._frames)
        except (grpc.aio.AioRpcError, StopAsyncIteration):
            pass
        except asyncio.CancelledError:
            if not self._cancelled_alone():
                self._cancelled = True
                raise
        error = self._broken_off if self._cancelled else await self._why()
        if error is not None:
            raise error
        return None

    async def done_writing(self) -> None:
        """Half-close; does nothing on a call that has ended."""
        self._done_writing = True
        if not self._cancelled:
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await self._call.done_writing()

    def cancel(self) -> None:
        self._cancelled = True
        self._call.cancel()

    def break_off(self, error: SwarmError) -> None:
        """Cancel for whoever reads or writes: they get `error`."""
        self._broken_off = error
        self.cancel()

    async def _send(self, frame: bytes) -> None:
        """call.write, but for its habit of hiding why the server ended the call behind an error of its own."""
        await self._call.wait_for_connection()
        send = getattr(getattr(self._call, "_cython_call", None), "send_serialized_message", self._call.write)
        try:
            await send(frame)
        except asyncio.CancelledError:
            self._call.cancel()
            raise

    def _cancelled_alone(self) -> bool:
        """A CancelledError means that this call was cancelled, and not the task that waits for it."""
        task = asyncio.current_task()
        return self._cancelled and (task is None or not task.cancelling())

    def _note_ending(self, call: Any) -> None:
        """Keep the first status that is the server's; called at each status that grpc.aio sets, while it is set."""
        ending = Ending(_now(call.code()), _now(call.details()) or "", dict(_now(call.trailing_metadata()) or ()))
        if ending.details != _WRITE_FAILED and not self._ending.done():
            self._ending.set_result(ending)

    async def _why(self) -> SwarmError | None:
        """The error that the call ended with; None when it ended well."""
        await asyncio.wait((self._ending,), timeout=_ENDING_WAIT_S)
        if not self._ending.done():
            return _lost()
        ending = self._ending.result()
        return None if ending.code is grpc.StatusCode.OK else self._explain(ending)

    async def _read_ahead(self) -> None:
        """Take in what the server sent last, so that its status can follow."""
        with contextlib.suppress(TimeoutError, StopAsyncIteration, grpc.aio.AioRpcError):
            async with self._reading, asyncio.timeout(_ENDING_WAIT_S):
                while len(self._unread) < _MAX_UNREAD:
                    self._unread.append(await anext(self._frames))


def _lost() -> SessionLost:
    return SessionLost("the other node ended the session before this one did; replay it elsewhere")


def _now(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that has nothing to wait for: those of a call whose status is set."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    finally:
        coroutine.close()
    raise LocalProtocolError("a finished call has no status yet")
