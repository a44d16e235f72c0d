"""One thread that computes, first come first served, while the event loop goes on moving bytes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class ComputeThread:
    """Runs one piece of work at a time; the others wait in order of arrival.

    A session has at most one step in flight, so first come first served is also a fair turn for each session.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="compute")

    async def run(self, work: Callable[[], T]) -> tuple[T, float, float]:
        """(what work returns, seconds that it waited, seconds that it ran)."""
        asked_s = time.perf_counter()

        def timed() -> tuple[T, float, float]:
            started_s = time.perf_counter()
            value = work()
            return value, started_s - asked_s, time.perf_counter() - started_s

        return await asyncio.get_running_loop().run_in_executor(self._executor, timed)

    def close(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)
