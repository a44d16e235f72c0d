"""One thread that computes what has arrived, the waiting rows of all sessions together, while the loop moves bytes.

Whatever came while the last batch ran goes into the next one. Decode rows go first and all at once; what room is left
belongs to prompts, in slices, so that a long prompt never makes the others wait for more than a slice of
it, and is itself never left out. Knows no models: what a batch computes is its caller's.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable
from typing import Any

from node.stage.batch import BatchConfig, Job, Slice, next_batch, who_sits_out
from node.stage.shares import FairClock
from swarm.errors import SessionLost

logger = logging.getLogger(__name__)

REMEMBERED = 0.9
"""What the batches before count for when the speed is told, each a tenth less than the next."""


class ComputeThread:
    """compute: takes the slices of a batch and puts each slice's output (or error) into its job; what it raises fails
    the whole batch. run() from an event loop, close() from any thread.
    """

    def __init__(self, compute: Callable[[list[Slice]], None], config: BatchConfig) -> None:
        self._compute = compute
        self._config = config
        self._waiting: deque[Job] = deque()
        self._recent: deque[dict[Hashable, Hashable]] = deque(
            maxlen=1
        )  # who decoded in the last batches, and its group
        self._served: dict[Hashable, int] = {}  # the last batch of each group
        self._n_batches = 0
        self._clock = FairClock()
        self._sat_out: frozenset[Hashable] = frozenset()  # clients that the last batch left out
        self._lately = (0.0, 0.0)  # seconds and rows of the last batches
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="compute", daemon=True)
        self._thread.start()

    @property
    def seconds_per_row(self) -> float:
        """As the last batches took; 0.0 before the first."""
        seconds, rows = self._lately
        return seconds / rows if rows else 0.0

    async def run(
        self, session: Hashable, group: Hashable, n_rows: int, work: Any, n_hops: int = 1, client: Hashable = None
    ) -> Job:
        """The job, done. Raises: what its computation raised; SessionLost when the thread is closed."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Job] = loop.create_future()

        def settle(job: Job) -> None:
            if future.cancelled():
                return
            if job.error is not None:
                future.set_exception(job.error)
            else:
                future.set_result(job)

        def done(job: Job) -> None:
            loop.call_soon_threadsafe(settle, job)

        job = Job(session, group, n_rows, work, done, time.perf_counter(), n_hops, client)
        with self._wake:
            if self._closed:
                raise SessionLost("the stage is shutting down")
            self._waiting.append(job)
            self._wake.notify()
        try:
            return await future
        except asyncio.CancelledError:
            with self._wake:
                if job in self._waiting and not job.n_done:
                    self._waiting.remove(job)
            raise

    def close(self) -> None:
        """End once the running batch is done; what waits fails with SessionLost."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        last: list[Slice] = []
        last_s = 0.0
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._closed or self._waiting)
                if not self._closed:
                    self._linger(last, last_s)
                if self._closed:
                    waiting = list(self._waiting)
                    self._waiting.clear()
                    break
                batch = self._next_batch()
            started_s = time.perf_counter()
            for part in batch:
                part.job.started_s = part.job.started_s or started_s
            try:
                self._compute(batch)
            except BaseException as error:  # the thread must live: whatever it was, it was this batch's
                logger.exception("a batch failed")
                for part in batch:
                    part.job.error = error
            last, last_s = batch, time.perf_counter() - started_s
            seconds, rows = self._lately
            n_rows = sum(part.n_rows for part in batch)
            self._lately = (REMEMBERED * seconds + last_s, REMEMBERED * rows + n_rows)
            self._remember(batch)
            self._settle(batch, last_s)
        for job in waiting:
            job.error = SessionLost("the stage is shutting down")
            job.done(job)

    def _linger(self, last: list[Slice], last_s: float) -> None:
        """Wait a little for the sessions that decoded together last time: apart they would read the weights twice."""
        expected = {part.job.session for part in last if part.job.is_decode and part.job.n_hops == 1}
        if len(expected) < 2:
            return
        deadline_s = time.perf_counter() + last_s * self._config.linger_share

        def all_back() -> bool:
            return self._closed or len(self._waiting) >= len(expected)

        while not all_back():
            left_s = deadline_s - time.perf_counter()
            if left_s <= 0 or not self._wake.wait(left_s):
                return

    def _next_batch(self) -> list[Slice]:
        """Of a group of the client that is furthest behind; of its groups the one that was served least lately: a long
        prompt of one must not hold up another's tokens. Whoever had much more than that client leaves it a batch to
        itself, but never two in a row.
        """
        self._sat_out = who_sits_out(self._waiting, self._clock.time) - self._sat_out
        waiting = [job for job in self._waiting if job.client not in self._sat_out]
        behind: dict[Hashable, float] = {}
        for job in waiting:
            served = self._clock.time(job.client)
            behind[job.group] = min(served, behind.get(job.group, served))
        group = min(behind, key=lambda group: (behind[group], self._served.get(group, -1)))
        self._served = {g: n for g, n in self._served.items() if g in behind}
        self._n_batches += 1
        self._served[group] = self._n_batches
        batch = next_batch(waiting, self._config, self._share_of_pipeline(group), group, self._clock.time)
        rows: Counter[Hashable] = Counter()
        for part in batch:
            rows[part.job.client] += part.n_rows
        self._clock.charge(rows)
        return batch

    def _share_of_pipeline(self, group: Hashable) -> int | None:
        """How many of a group's sessions may decode in one batch: on a route of n hops an n-th of those that do, so
        that the other hops have work while this one computes. None for all of them, where the route is one hop.
        """
        mine = [job for job in self._waiting if job.group == group]
        n_hops = mine[0].n_hops
        if n_hops == 1:
            return None
        lately = {session for batch in self._recent for session, its_group in batch.items() if its_group == group}
        return max(1, -(-len(lately.union(job.session for job in mine if job.is_decode)) // n_hops))

    def _remember(self, batch: list[Slice]) -> None:
        n_hops = max(part.job.n_hops for part in batch)
        if self._recent.maxlen != n_hops:
            self._recent = deque(self._recent, maxlen=n_hops)
        self._recent.append({part.job.session: part.job.group for part in batch if part.job.is_decode})

    def _settle(self, batch: list[Slice], took_s: float) -> None:
        finished = []
        with self._wake:
            for part in batch:
                job = part.job
                job.compute_s += took_s
                job.n_done += part.n_rows
                if job.error is not None or job.n_left == 0:
                    finished.append(job)
                    if job in self._waiting:
                        self._waiting.remove(job)
        for job in finished:
            job.done(job)
