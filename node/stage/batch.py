"""What goes into the next batch: decode rows first and all at once, then slices of prompts. Pure.

Where not all fits, clients take turns by what was computed for each (see FairClock), and a client's own jobs by age.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from node.model.cache import MAX_PREPARED_ROWS
from swarm.errors import BadArgument

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

    session: whose; at most one slice of a session is in a batch. client: who asked for it. group: only jobs of one
    group are computed together. n_hops: of its route. n_batches: among how many batches the decoding sessions of its
    group are shared out. n_done: rows that earlier batches computed; outputs: theirs. answer: of the whole.
    """

    session: Hashable
    group: Hashable
    n_rows: int
    work: Any
    done: Callable[[Job], None]
    queued_s: float
    n_hops: int = 1
    n_batches: int = 1
    client: Hashable = None
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


TURN_ROWS = 16
"""Rows of a prompt that a client takes at a turn: what a matrix product is padded to in exact profiles."""


def next_batch(
    waiting: Sequence[Job],
    config: BatchConfig,
    max_decoding: int | None = None,
    group: Hashable = None,
    time: Callable[[Hashable], float] = lambda client: 0.0,
) -> list[Slice]:
    """The slices of the next batch, from jobs in order of arrival; not empty unless waiting is.

    group: whose jobs; by default the oldest job's. time: of a client, in rows; the least goes first. Decode rows come
    first, up to max_rows, of max_decoding sessions at most; prompts share what is left of max_rows, or prompt_rows
    beside rows of others, a client's oldest first; the oldest of all gets TURN_ROWS in any case. A session's second job
    waits for its first.
    """
    if not waiting:
        return []
    group = waiting[0].group if group is None else group
    firsts: dict[Hashable, Job] = {}
    for job in waiting:
        if job.session not in firsts:
            firsts[job.session] = job
    mine = [job for job in firsts.values() if job.group == group]
    turns = _Turns(time)
    slices: list[Slice] = []
    n_rows = 0
    prompts = [job for job in mine if not job.is_decode]
    room = config.max_rows - min(config.prompt_rows, sum(job.n_left for job in prompts))
    for job in turns.of([job for job in mine if job.is_decode]):
        if len(slices) == max_decoding:
            break
        if n_rows + job.n_left <= room:
            slices.append(Slice(job, job.n_left))
            n_rows += job.n_left
            turns.take(job.client, job.n_left)
    left = config.max_rows - n_rows
    if len({job.client for job in mine}) > 1 or slices:
        left = min(left, config.prompt_rows)
    return slices + _share(prompts, left, turns)


def _share(prompts: Sequence[Job], left: int, turns: _Turns) -> list[Slice]:
    """So many rows of the prompts, TURN_ROWS at a turn; the oldest one has the first, so that none is left out."""
    rows = dict.fromkeys(prompts, 0)
    for job in prompts[:1]:
        rows[job] = min(TURN_ROWS, job.n_left, left)
        left -= rows[job]
        turns.take(job.client, rows[job])
    for job in turns.of(prompts, lambda job: rows[job] == job.n_left):
        n = min(TURN_ROWS, job.n_left - rows[job], left)
        rows[job] += n
        left -= n
        turns.take(job.client, n)
        if left == 0:
            break
    return [Slice(job, n) for job, n in rows.items() if n]


def who_sits_out(waiting: Sequence[Job], time: Callable[[Hashable], float]) -> frozenset[Hashable]:
    """Clients that had so much more than another, whose prompt waits, that they would have had more even after it."""
    prompts = [job for job in waiting if not job.is_decode]
    if not prompts:
        return frozenset()
    first = min(prompts, key=lambda job: time(job.client))
    after = time(first.client) + first.n_left
    return frozenset(client for client in {job.client for job in waiting} if time(client) >= after)


class _Turns:
    """Whose turn it is, given what each client has taken of this batch."""

    def __init__(self, time: Callable[[Hashable], float]) -> None:
        self._time = time
        self._times: dict[Hashable, float] = {}

    def take(self, client: Hashable, n_rows: int) -> None:
        self._times[client] = self._times.get(client, self._time(client)) + n_rows

    def of(self, jobs: Sequence[Job], is_done: Callable[[Job], bool] = lambda job: True) -> Iterator[Job]:
        """The jobs, again and again until each is done, of the client of the least time; the oldest job first."""
        queues: dict[Hashable, deque[Job]] = {}
        for job in jobs:
            queues.setdefault(job.client, deque()).append(job)
        while queues:
            client = min(queues, key=lambda client: self._times.get(client, self._time(client)))
            job = queues[client][0]
            yield job
            if is_done(job):
                queues[client].popleft()
                if not queues[client]:
                    del queues[client]
