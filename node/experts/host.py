"""Answers for the experts that are loaded here: whatever waits for the same layer is computed together, an expert's
weights read once for all of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from node.model import ExpertStore
from node.stage import (
    DTYPES,
    WATCH_S,
    BatchConfig,
    ComputeThread,
    Job,
    Slice,
    is_out_of_memory,
    may_have,
    rows_of,
    tensor_of,
)
from swarm.errors import BadArgument, ExpertUnavailable, RemoteProtocolError, StageFull, SwarmError
from swarm.messages import ExpertAnswer, ExpertCall
from swarm.terms import NodeId


@dataclass(frozen=True, slots=True)
class ExpertHostConfig:
    """max_waiting_rows: that wait for an answer; more are refused, so that who asks goes elsewhere. Raising it raises
    memory, by the rows' size, and how long the last one waits. Callers share them as the rules of node.stage have it.
    max_call_rows and max_answer_bytes: of one answer, which must fit a message of RpcConfig's with its frame.
    """

    max_waiting_rows: int = 8192
    max_call_rows: int = 2048
    max_answer_bytes: int = 31 << 20

    def __post_init__(self) -> None:
        if self.max_waiting_rows < 1 or self.max_call_rows < 1 or self.max_answer_bytes < 1:
            raise BadArgument("max_waiting_rows, max_call_rows and max_answer_bytes must be positive")


Reply = ExpertAnswer | BaseException
"""What comes of a call: its answer, or what went wrong."""


class ExpertHost:
    """A compute thread of its own over the experts of a store. Use within one event loop."""

    def __init__(self, store: ExpertStore, config: ExpertHostConfig | None = None) -> None:
        self.config = config or ExpertHostConfig()
        self._store = store
        self._waiting: Counter[NodeId] = Counter()  # rows of each caller
        self._running: dict[Job, Callable[[Reply], None]] = {}
        self._watch: asyncio.TimerHandle | None = None
        # Calls are no sessions that come back: there is nobody to linger for.
        self._compute = ComputeThread(self._compute_slices, BatchConfig(linger_share=0.0))

    def begin(self, call: ExpertCall, caller: NodeId, then: Callable[[Reply], None]) -> Callable[[], None]:
        """Compute it; `then` is called in this loop with what comes of it. -> what ends the call, to be called once:
        when nobody waits any more, or the answer is on its way. Until then its rows count as the caller's.

        Raises: ExpertUnavailable (one that is not here), StageFull, RemoteProtocolError; SessionLost when closed. What
        `then` may get of errors: these, and DeadlineExceeded when the thread is stuck.
        """
        loop = asyncio.get_running_loop()
        x = self._check(call)
        self._require_share(call.n_answers, caller)

        def done(job: Job) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(self._settle, job)

        job = Job(object(), call.layer_idx, call.n_answers, (call, x), done, time.perf_counter(), client=caller)
        self._compute.submit(job)
        self._running[job] = then
        self._waiting[caller] += job.n_rows
        if self._watch is None:
            self._watch = loop.call_later(WATCH_S, self._look)
        return partial(self._end, job, caller)

    def close(self) -> None:
        """End once the running batch is done; what waits fails."""
        if self._watch is not None:
            self._watch.cancel()
        self._compute.close()

    def _settle(self, job: Job, error: Exception | None = None) -> None:
        then = self._running.pop(job, None)
        if then is not None:
            call: ExpertCall = job.work[0]
            queue_s = job.started_s - job.queued_s
            then(error or job.error or ExpertAnswer(call.request_id, job.answer, queue_s, job.compute_s))

    def _end(self, job: Job, caller: NodeId) -> None:
        if self._compute.withdraw(job):
            self._running.pop(job, None)
        elif job in self._running:  # its rows count until they are computed
            self._running[job] = lambda _: self._release(job, caller)
            return
        self._release(job, caller)

    def _release(self, job: Job, caller: NodeId) -> None:
        self._waiting[caller] -= job.n_rows
        if not self._waiting[caller]:
            del self._waiting[caller]

    def _look(self) -> None:
        """Fail what waits for a thread that is stuck."""
        self._watch = None
        try:
            self._compute.check()
        except SwarmError as error:
            for job in list(self._running):
                self._settle(job, error)
        if self._running:
            self._watch = asyncio.get_running_loop().call_later(WATCH_S, self._look)

    def _check(self, call: ExpertCall) -> Tensor:
        store = self._store
        experts = store.of_layer(call.layer_idx) if call.layer_idx < store.args.n_layers else {}
        if lacking := _lacking(call, experts):
            raise lacking
        if call.n_answers > self.config.max_call_rows:
            raise RemoteProtocolError(f"an answer of {call.n_answers} rows; {self.config.max_call_rows} are the most")
        n_bytes = call.n_answers * store.args.dim * store.numerics.dtype.itemsize
        if n_bytes > self.config.max_answer_bytes:
            raise RemoteProtocolError(f"an answer of {n_bytes} bytes; {self.config.max_answer_bytes} are the most")
        if DTYPES[call.rows.dtype] != store.numerics.dtype:
            raise RemoteProtocolError(
                f"rows of {call.rows.dtype} came to a host that computes in {store.numerics.dtype}"
            )
        return tensor_of(call.rows, store.args.dim, store.device)

    def _require_share(self, n_rows: int, caller: NodeId) -> None:
        """Raises: StageFull. Where nothing waits any single call may."""
        used, mine = self._waiting.total(), self._waiting[caller]
        limit, n_callers = self.config.max_waiting_rows, len({*self._waiting, caller})
        if used and not may_have(n_rows, mine=mine, used=used, limit=limit, n_clients=n_callers):
            raise StageFull(f"{used} rows wait for experts here already, {mine} of them yours; ask another host", 0.1)

    def _compute_slices(self, slices: list[Slice]) -> None:
        """All of one layer. A slice is a run of its call's answer rows. Without the memory for it all of them fail."""
        layer_idx = slices[0].job.group
        assert isinstance(layer_idx, int)
        experts = dict(self._store.of_layer(layer_idx))
        for part in slices:
            if lacking := _lacking(part.job.work[0], experts):
                part.job.error = lacking  # it went while the call waited
        try:
            self._compute_answers([part for part in slices if part.job.error is None], experts)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise StageFull("the node ran out of memory in this call; ask another host", retry_after_s=10.0) from None

    @torch.inference_mode()
    def _compute_answers(self, slices: list[Slice], experts: Mapping[int, Callable[[Tensor], Tensor]]) -> None:
        rows: defaultdict[int, list[Tensor]] = defaultdict(list)
        for part in slices:
            for expert_idx, x in _rows_of_slice(part):
                rows[expert_idx].append(x)
        answers = {}
        for expert_idx, parts in rows.items():
            answer = experts[expert_idx](torch.cat(parts) if len(parts) > 1 else parts[0])
            answers[expert_idx] = iter(answer.split([len(x) for x in parts]))
        for part in slices:
            mine = [next(answers[expert_idx]) for expert_idx, _ in _rows_of_slice(part)]
            part.job.outputs += mine
            if part.n_rows == part.job.n_left:
                outputs: Sequence[Tensor] = part.job.outputs
                part.job.answer = rows_of(torch.cat(list(outputs)) if len(outputs) > 1 else outputs[0])


def _lacking(call: ExpertCall, experts: Collection[int]) -> ExpertUnavailable | None:
    """What is wrong if one of the call's experts is not among these."""
    for expert_idx, _ in call.wanted:
        if expert_idx not in experts:
            return ExpertUnavailable(f"layer {call.layer_idx} expert {expert_idx} is not loaded here")
    return None


def _rows_of_slice(part: Slice) -> list[tuple[int, Tensor]]:
    """(expert_idx, its rows (n, D)) for each expert that this slice asks for, in the order of the answer."""
    call, x = part.job.work
    found = []
    first, end = part.job.n_done, part.job.n_done + part.n_rows
    at = 0
    for expert_idx, row_idxs in call.wanted:
        mine = row_idxs[max(0, first - at) : max(0, end - at)]
        at += len(row_idxs)
        if mine:
            found.append((expert_idx, x if len(mine) == x.shape[0] else x[list(mine)]))
    return found
