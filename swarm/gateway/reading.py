"""Where requests' bodies are held and read: a bounded room, and one thread for the large ones.

Whatever is sent, what is held of it has a bound, and answers under way are not held up by it: a large body's JSON and
its encoding, a second for some, are the work of a thread that takes one body at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from swarm.errors import TooManyRequests

T = TypeVar("T")

THREAD_FROM_BYTES = 16 << 10
"""Bodies from this size on are read and encoded on the thread: smaller ones take less time than the change to it."""

RETRY_AFTER_S = 1.0


class ReadingRoom:
    """max_bytes: of all bodies that arrive or are being read; what is made of one takes some ten times its size."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._reader = ThreadPoolExecutor(1, "gateway-reading")
        self.n_bytes = 0

    @contextlib.contextmanager
    def place(self) -> Iterator[Callable[[int], None]]:
        """Room for one body until the context is left: call what it gives with the bytes of each part that comes.

        Raises: TooManyRequests, from that call, when other bodies leave no room for them.
        """
        n_taken = 0

        def take(n_bytes: int) -> None:
            nonlocal n_taken
            if self.n_bytes + n_bytes > self._max_bytes:
                raise TooManyRequests("too many large requests are being read; try again in a second", RETRY_AFTER_S)
            self.n_bytes += n_bytes
            n_taken += n_bytes

        try:
            yield take
        finally:
            self.n_bytes -= n_taken

    async def read(self, n_bytes: int, reading: Callable[[], T]) -> T:
        """What `reading` makes of a body of that size, wherever that holds up nobody."""
        if n_bytes < THREAD_FROM_BYTES:
            return reading()
        return await asyncio.get_running_loop().run_in_executor(self._reader, reading)

    def close(self) -> None:
        self._reader.shutdown(wait=False, cancel_futures=True)
