"""Where requests' bodies are held and read: a bounded room, and one thread for the large ones.

Whatever is sent, what is held of it has a bound, and answers under way are not held up by it: a large body's JSON and
its encoding, a second for some, are the work of a thread that takes one body at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from swarm.errors import TooManyRequests

T = TypeVar("T")

THREAD_FROM_BYTES = 16 << 10
"""Bodies from this size on are read and encoded on the thread: smaller ones take less time than the change to it."""

RETRY_AFTER_S = 1.0


class ReadingRoom:
    """max_bytes: of all bodies that arrive or are being read; what is made of one takes some ten times its size.

    One caller's take half of it at most, and the first THREAD_FROM_BYTES of a body none: what one caller sends and
    leaves unfinished keeps nobody else's request out, and no small one.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._reader = ThreadPoolExecutor(1, "gateway-reading")
        self._taken: Counter[str] = Counter()

    @property
    def n_bytes(self) -> int:
        """Taken at the moment."""
        return self._taken.total()

    @contextlib.contextmanager
    def place(self, name: str) -> Iterator[Callable[[int], None]]:
        """Room for one body of a caller's until the context is left: call what it gives with the bytes of each part.

        Raises: TooManyRequests, from that call, when other bodies leave no room for them.
        """
        n_come, n_taken = 0, 0

        def take(n_bytes: int) -> None:
            nonlocal n_come, n_taken
            n_come += n_bytes
            n_more = max(0, n_come - THREAD_FROM_BYTES) - n_taken
            if self.n_bytes + n_more > self._max_bytes or self._taken[name] + n_more > self._max_bytes // 2:
                raise TooManyRequests("too many large requests are being read; try again in a second", RETRY_AFTER_S)
            self._taken[name] += n_more
            n_taken += n_more

        try:
            yield take
        finally:
            self._taken[name] -= n_taken
            if not self._taken[name]:
                del self._taken[name]

    async def read(self, n_bytes: int, reading: Callable[[], T]) -> T:
        """What `reading` makes of a body of that size, wherever that holds up nobody."""
        if n_bytes < THREAD_FROM_BYTES:
            return reading()
        return await asyncio.get_running_loop().run_in_executor(self._reader, reading)

    def close(self) -> None:
        self._reader.shutdown(wait=False, cancel_futures=True)
