"""One thread that computes what has arrived, the waiting rows of all sessions together, while the loop moves bytes.

Whatever came while the last batch ran goes into the next one. Decode rows go first and all at once; what room is left
belongs to prompts, in slices, oldest first, so that a long prompt never makes the others wait for more than a slice of
it, and is itself never left out. A batch may be away for a while, waiting for others: then the next one, of other
sessions, is computed. Knows no models: what a batch computes, and what it waits for, is its caller's.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from node.model.cache import MAX_PREPARED_ROWS
from node.stage.pulse import Pulse
from swarm.errors import BadArgument, SessionLost, SwarmError

logger = logging.getLogger(__name__)

WATCH_S = 1.0
"""How often a step that waits looks whether the thread is stuck."""

DECODE_ROWS = 16
"""A step of so many rows or fewer (decode, speculation) is never cut and goes before the prompts."""


MAX_STARTED = 2
"""Batches that are computed or away: while one waits the other is computed. More would each be smaller, and read the
same weights again."""


@dataclass(frozen=True, slots=True)
class BatchConfig:
    """max_rows: of one batch; more serve more sessions per reading of the weights and make each wait longer.

    prompt_rows: of prompts beside decode rows; more prefill faster and make tokens come less evenly. linger_share: of
    the last batch's time for which the next one waits for sessions that took part in it and are on their way back;
    more fill batches better and cost a lone session nothing.
    """

    max_rows: int = 512
    prompt_rows: int = 128
    linger_share: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.prompt_rows <= self.max_rows - DECODE_ROWS or self.max_rows > MAX_PREPARED_ROWS:
            raise BadArgument(
                f"a batch has at most {MAX_PREPARED_ROWS} rows, and room for {DECODE_ROWS} beside those of prompts"
            )


@dataclass(slots=True, eq=False)
class Job:
    """One step that waits or runs.

    session: whose; at most one slice of a session is in a batch. group: only jobs of one group are computed together.
    n_hops: of its route. n_batches: among how many batches the decoding sessions of its group are shared out. n_done:
    rows that earlier batches computed; outputs: theirs. answer: of the whole.
    """

    session: Hashable
    group: Hashable
    n_rows: int
    work: Any
    done: Callable[[Job], None]
    queued_s: float
    n_hops: int = 1
    n_batches: int = 1
    started_s: float = 0.0
    n_done: int = 0
    compute_s: float = 0.0
    outputs: list[Any] = field(default_factory=list)
    answer: Any = None
    error: BaseException | None = None

    @property
    def n_left(self) -> int:
        return self.n_rows - self.n_done

    @property
    def is_decode(self) -> bool:
        return self.n_rows <= DECODE_ROWS


@dataclass(frozen=True, slots=True)
class Slice:
    """The next n_rows of a job."""

    job: Job
    n_rows: int


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


def next_batch(
    waiting: Sequence[Job], config: BatchConfig, max_decoding: int | None = None, group: Hashable = None
) -> list[Slice]:
    """The slices of the next batch, from jobs in order of arrival; not empty unless waiting is.

    group: whose jobs; by default the oldest job's. Decode rows come first, up to max_rows, of max_decoding sessions at
    most; prompts share what is left of max_rows, or prompt_rows beside decode rows, oldest first. A session's second
    job waits for its first.
    """
    if not waiting:
        return []
    group = waiting[0].group if group is None else group
    firsts: dict[Hashable, Job] = {}
    for job in waiting:
        if job.session not in firsts:
            firsts[job.session] = job
    mine = [job for job in firsts.values() if job.group == group]
    slices: list[Slice] = []
    n_rows = 0
    prompts = [job for job in mine if not job.is_decode]
    room = config.max_rows - min(config.prompt_rows, sum(job.n_left for job in prompts))
    for job in mine:
        if len(slices) == max_decoding:
            break
        if job.is_decode and n_rows + job.n_left <= room:
            slices.append(Slice(job, job.n_left))
            n_rows += job.n_left
    left = config.max_rows - n_rows
    if slices:
        left = min(left, config.prompt_rows)
    for job in prompts:
        if left > 0:
            n = min(job.n_left, left)
            slices.append(Slice(job, n))
            left -= n
    return slices


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
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="compute", daemon=True)
        self._thread.start()

    async def run(
        self, session: Hashable, group: Hashable, n_rows: int, work: Any, n_hops: int = 1, n_batches: int | None = None
    ) -> Job:
        """The job, done. n_batches: as many as hops, unless it is said.

        Raises: what its computation raised; SessionLost when the thread is closed; DeadlineExceeded when it is
        stuck in a batch.
        """
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

        job = Job(session, group, n_rows, work, done, time.perf_counter(), n_hops, n_batches or n_hops)
        with self._wake:
            if self._closed:
                raise SessionLost("the stage is shutting down")
            self._waiting.append(job)
            self._wake.notify()
        try:
            while not future.done():
                await asyncio.wait((future,), timeout=WATCH_S)
                if not future.done():
                    self._pulse.check()
            return future.result()
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
        for batch in self._started:
            if batch.steps is not None:
                batch.steps.close()
        for job in waiting:
            job.error = SessionLost("the stage is shutting down")
            job.done(job)

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
        """Of the group that was served least lately: a long prompt of one must not hold up another's tokens."""
        waiting = self._free()
        groups = dict.fromkeys(job.group for job in waiting)
        group = min(groups, key=lambda group: self._served.get(group, -1))
        self._served = {g: n for g, n in self._served.items() if g in groups}
        self._n_batches += 1
        self._served[group] = self._n_batches
        slices = next_batch(waiting, self._config, self._share_of_pipeline(group), group)
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
