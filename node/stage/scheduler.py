"""One thread that computes what has arrived, the waiting rows of all sessions together, while the loop moves bytes.

Whatever came while the last batch ran goes into the next one. Decode rows go first and all at once; what room is left
belongs to prompts, in slices, so that a long prompt never makes the others wait for more than a slice of it, and is
itself never left out. A batch may be away for a while, waiting for others: then the next one, of other sessions, is
computed. Knows no models: what a batch computes, and what it waits for, is its caller's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Hashable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from node.stage.batch import BatchConfig, Job, Slice, next_batch, who_sits_out
from node.stage.pulse import Pulse
from node.stage.shares import FairClock
from swarm.errors import SessionLost, SwarmError

logger = logging.getLogger(__name__)

REMEMBERED = 0.9
"""What the batches before count for when the speed is told, each a tenth less than the next."""

WATCH_S = 1.0
"""How often a step that waits looks whether the thread is stuck."""

MAX_STARTED = 2
"""Batches that are computed or away: while one waits the other is computed. More would each be smaller, and read the
same weights again."""


@dataclass(slots=True, eq=False)
class _Started:
    """A batch on its way. steps: what is left of its computation; away: what that waits for."""

    slices: list[Slice]
    steps: Generator[Future[Any], None, None] | None
    away: Future[Any] | None = None
    started_s: float = field(default_factory=time.perf_counter)
    compute_s: float = 0.0

    @property
    def is_ready(self) -> bool:
        return self.away is None or self.away.done()


class ComputeThread:
    """compute: takes the slices of a batch and puts each slice's output (or error) into its job; what it raises fails
    the whole batch. It may be a generator: what it yields it waits for, until that is done. run() from an event loop,
    close() from any thread.
    """

    def __init__(
        self,
        compute: Callable[[list[Slice]], Generator[Future[Any], None, None] | None],
        config: BatchConfig,
        pulse: Pulse | None = None,
    ) -> None:
        self._compute = compute
        self._pulse = pulse or Pulse()
        self._config = config
        self._waiting: deque[Job] = deque()
        self._started: list[_Started] = []  # the longest under way first
        self._expected: set[Hashable] = set()  # sessions that are likely to be back soon,
        self._linger_s = 0.0  # how long to wait for them once the first one is here,
        self._linger_until_s: float | None = None  # and until when that is
        self._recent: deque[dict[Hashable, Hashable]] = deque(
            maxlen=1
        )  # who decoded in the last batches, and its group
        self._served: dict[Hashable, int] = {}  # the last batch of each group
        self._n_batches = 0
        self._clock = FairClock()
        self._sat_out: frozenset[Hashable] = frozenset()  # clients that the last batch left out
        self._lately = (0.0, 0.0)  # seconds and rows of the last batches
        # What the thread tells each loop next: the jobs that are done, and who awaits them.
        self._told: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Job], Job]]] = {}
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
        self,
        session: Hashable,
        group: Hashable,
        n_rows: int,
        work: Any,
        n_hops: int = 1,
        n_batches: int | None = None,
        client: Hashable = None,
    ) -> Job:
        """The job, done. session: its name, which is remembered for longer than it lives; what it holds belongs into
        work. n_batches: as many as hops, unless it is said.

        Raises: what its computation raised; SessionLost when the thread is closed; DeadlineExceeded when it is
        stuck in a batch.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Job] = loop.create_future()

        def done(job: Job) -> None:
            self._told.setdefault(loop, []).append((future, job))

        watch: asyncio.TimerHandle

        def look() -> None:
            nonlocal watch
            try:
                self.check()
            except SwarmError as error:
                if not future.done():
                    future.set_exception(error)
            else:
                watch = loop.call_later(WATCH_S, look)

        watch = loop.call_later(WATCH_S, look)
        job = Job(session, group, n_rows, work, done, time.perf_counter(), n_hops, n_batches or n_hops, client)
        try:
            self.submit(job)
            return await future
        except asyncio.CancelledError:
            self.withdraw(job)
            raise
        finally:
            watch.cancel()

    def submit(self, job: Job) -> None:
        """Its `done` is called in the thread once it is, or has failed. Raises: SessionLost when that is closed."""
        with self._wake:
            if self._closed:
                raise SessionLost("the stage is shutting down")
            self._waiting.append(job)
            self._wake.notify()

    def withdraw(self, job: Job) -> bool:
        """Nobody waits for it any more. -> whether it left the queue; `done` is called only if it was just begun."""
        with self._wake:
            has_not_begun = job in self._waiting and not job.started_s
            if has_not_begun:
                self._waiting.remove(job)
        return has_not_begun

    def check(self) -> None:
        """Raises: DeadlineExceeded when the thread is stuck in a batch."""
        self._pulse.check()

    def close(self) -> None:
        """End once the running batch is done; what waits fails with SessionLost."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not (self._closed or self._ready() or self._can_start()):
                    self._wake.wait(self._linger_left_s())
                if self._closed:
                    waiting = list(self._waiting)
                    self._waiting.clear()
                    break
                batch = self._ready() or self._next_batch()
            self._go_on(batch)
            if batch.steps is None:
                self._remember(batch)
                self._settle(batch)
            del batch  # it holds sessions, and they the weights of layers that this node may be about to leave
        for batch in self._started:
            if batch.steps is not None:
                batch.steps.close()
        for job in waiting:
            job.error = SessionLost("the stage is shutting down")
            job.done(job)
        self._tell()

    def _ready(self) -> _Started | None:
        """A batch that has what it waited for: the longest under way."""
        return next((batch for batch in self._started if batch.is_ready), None)

    def _free(self) -> list[Job]:
        """What waits of sessions that no batch on its way is of."""
        busy = {part.job.session for batch in self._started for part in batch.slices}
        return [job for job in self._waiting if job.session not in busy]

    def _can_start(self) -> bool:
        """Not while sessions that decoded together last time may come back: apart they would read the weights twice."""
        free = self._free()
        if not free or len(self._started) == MAX_STARTED:
            return False
        if self._linger_until_s is None:
            self._linger_until_s = time.perf_counter() + self._linger_s
        return len(free) >= len(self._expected) or self._linger_left_s() is None

    def _go_on(self, batch: _Started) -> None:
        """Compute until the batch is done, or waits for something."""
        started_s = time.perf_counter()
        for part in batch.slices:
            part.job.started_s = part.job.started_s or started_s
        self._pulse.began(sum(part.n_rows for part in batch.slices))
        try:
            batch.steps = batch.steps or self._compute(batch.slices)
            batch.away = None if batch.steps is None else next(batch.steps)
        except StopIteration:
            batch.steps = None
        except BaseException as error:  # the thread must live: whatever it was, it was this batch's
            if not isinstance(error, SwarmError):
                logger.exception("a batch failed")
            for part in batch.slices:
                part.job.error = error
            batch.steps = None
        self._pulse.ended()
        batch.compute_s += time.perf_counter() - started_s
        if batch.steps is not None and batch.away is not None:
            batch.away.add_done_callback(self._on_done)

    def _on_done(self, _: Future[Any]) -> None:
        with self._wake:
            self._wake.notify()

    def _linger_left_s(self) -> float | None:
        """For how long the next batch waits for those that are expected; None for as long as nothing comes."""
        if self._linger_until_s is None:
            return None
        return max(0.0, self._linger_until_s - time.perf_counter()) or None

    def _next_batch(self) -> _Started:
        """Of a group of the client that is furthest behind; of its groups the one that was served least lately: a long
        prompt of one must not hold up another's tokens. Whoever had much more than that client leaves it a batch to
        itself, but never two in a row.
        """
        free = self._free()
        self._sat_out = who_sits_out(free, self._clock.time) - self._sat_out
        waiting = [job for job in free if job.client not in self._sat_out]
        behind: dict[Hashable, float] = {}
        for job in waiting:
            served = self._clock.time(job.client)
            behind[job.group] = min(served, behind.get(job.group, served))
        group = min(behind, key=lambda group: (behind[group], self._served.get(group, -1)))
        self._served = {g: n for g, n in self._served.items() if g in behind}
        self._n_batches += 1
        self._served[group] = self._n_batches
        slices = next_batch(waiting, self._config, self._share_of_pipeline(group), group, self._clock.time)
        rows: Counter[Hashable] = Counter()
        for part in slices:
            rows[part.job.client] += part.n_rows
        self._clock.charge(rows)
        batch = _Started(slices, None)
        self._started.append(batch)
        return batch

    def _share_of_pipeline(self, group: Hashable) -> int | None:
        """How many of a group's sessions may decode in one batch: on a route of n hops an n-th of those that do, so
        that the other hops have work while this one computes; where experts are elsewhere, a half. None for all.
        """
        mine = [job for job in self._waiting if job.group == group]
        n_batches = mine[0].n_batches
        if n_batches == 1:
            return None
        lately = {session for batch in self._recent for session, its_group in batch.items() if its_group == group}
        return max(1, -(-len(lately.union(job.session for job in mine if job.is_decode)) // n_batches))

    def _remember(self, batch: _Started) -> None:
        n_batches = max(part.job.n_batches for part in batch.slices)
        if self._recent.maxlen != n_batches:
            self._recent = deque(self._recent, maxlen=n_batches)
        decoded = [part.job for part in batch.slices if part.job.is_decode]
        self._recent.append({job.session: job.group for job in decoded})
        self._expected = {job.session for job in decoded if job.n_hops == 1}
        took_s = time.perf_counter() - batch.started_s if len(self._expected) > 1 else 0.0
        self._linger_s, self._linger_until_s = took_s * self._config.linger_share, None

    def _settle(self, batch: _Started) -> None:
        finished = []
        with self._wake:
            self._started.remove(batch)
            seconds, rows = self._lately
            n_rows = sum(part.n_rows for part in batch.slices)
            self._lately = (REMEMBERED * seconds + batch.compute_s, REMEMBERED * rows + n_rows)
            for part in batch.slices:
                job = part.job
                job.compute_s += batch.compute_s
                job.n_done += part.n_rows
                if job.error is not None or job.n_left == 0:
                    finished.append(job)
                    if job in self._waiting:
                        self._waiting.remove(job)
        for job in finished:
            job.done(job)
        self._tell()

    def _tell(self) -> None:
        """Wake each loop once for all of a batch's jobs that it waits for."""
        told, self._told = self._told, {}
        for loop, jobs in told.items():
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_settle, jobs)


def _settle(jobs: Iterable[tuple[asyncio.Future[Job], Job]]) -> None:
    for future, job in jobs:
        if future.done():
            continue
        if job.error is not None:
            future.set_exception(job.error)
        else:
            future.set_result(job)
