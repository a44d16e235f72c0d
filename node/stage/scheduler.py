"""One thread that computes what has arrived, the waiting rows of all sessions together, while the loop moves bytes.

Whatever came while the last batch ran goes into the next one. Decode rows go first and all at once; what room is left
belongs to prompts, in slices, oldest first, so that a long prompt never makes the others wait for more than a slice of
it, and is itself never left out. Knows no models: what a batch computes is its caller's.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from node.model.cache import MAX_PREPARED_ROWS
from node.stage.pulse import Pulse
from swarm.errors import BadArgument, SessionLost

logger = logging.getLogger(__name__)

WATCH_S = 1.0
"""How often a step that waits looks whether the thread is stuck."""

DECODE_ROWS = 16
"""A step of so many rows or fewer (decode, speculation) is never cut and goes before the prompts."""


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
    n_hops: of its route. n_done: rows that earlier batches computed; outputs: theirs. answer: of the whole.
    """

    session: Hashable
    group: Hashable
    n_rows: int
    work: Any
    done: Callable[[Job], None]
    queued_s: float
    n_hops: int = 1
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
    the whole batch. run() from an event loop, close() from any thread.
    """

    def __init__(self, compute: Callable[[list[Slice]], None], config: BatchConfig, pulse: Pulse | None = None) -> None:
        self._compute = compute
        self._pulse = pulse or Pulse()
        self._config = config
        self._waiting: deque[Job] = deque()
        self._recent: deque[dict[Hashable, Hashable]] = deque(
            maxlen=1
        )  # who decoded in the last batches, and its group
        self._served: dict[Hashable, int] = {}  # the last batch of each group
        self._n_batches = 0
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="compute", daemon=True)
        self._thread.start()

    async def run(self, session: Hashable, group: Hashable, n_rows: int, work: Any, n_hops: int = 1) -> Job:
        """The job, done. Raises: what its computation raised; SessionLost when the thread is closed; DeadlineExceeded
        when it is stuck in a batch.
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

        job = Job(session, group, n_rows, work, done, time.perf_counter(), n_hops)
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
            self._pulse.began(sum(part.n_rows for part in batch))
            try:
                self._compute(batch)
            except BaseException as error:  # the thread must live: whatever it was, it was this batch's
                logger.exception("a batch failed")
                for part in batch:
                    part.job.error = error
            self._pulse.ended()
            last, last_s = batch, time.perf_counter() - started_s
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
        """Of the group that was served least lately: a long prompt of one must not hold up another's tokens."""
        groups = dict.fromkeys(job.group for job in self._waiting)
        group = min(groups, key=lambda group: self._served.get(group, -1))
        self._served = {g: n for g, n in self._served.items() if g in groups}
        self._n_batches += 1
        self._served[group] = self._n_batches
        return next_batch(self._waiting, self._config, self._share_of_pipeline(group), group)

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
