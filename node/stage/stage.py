"""The stage: hosted layers, the sessions on them, and what they may cache."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from node.model import PAGE, KVCache, PagePool, SpanModel
from node.stage.compute import compute_batch
from node.stage.prefixes import Prefix
from node.stage.queue import RecentQueue
from node.stage.rows import rows_of
from node.stage.scheduler import BatchConfig, ComputeThread
from node.stage.session import SessionKey, StageSession
from swarm.errors import (
    BadArgument,
    RemoteProtocolError,
    SessionLost,
    StageFull,
    StaleEpoch,
)
from swarm.messages import Rows, Step, TopLogits
from swarm.release import ModelArgs
from swarm.terms import Span


@dataclass(frozen=True, slots=True)
class StageConfig:
    """cache_budget_bytes: for the KV pages of all sessions together; a session reserves its whole share when it opens,
    and what is not in use keeps prefixes for the sessions to come.

    max_sessions: more of them queue longer for the one compute thread. max_chunk_rows: rows in one step; more need more
    scratch memory and make the other sessions wait longer. max_answer_logits: logits returned by one step; each costs 8
    bytes on the wire and some 60 while the answer is made.
    """

    cache_budget_bytes: int = 1 << 30
    max_sessions: int = 64
    max_chunk_rows: int = 512
    max_answer_logits: int = 1 << 18
    batch: BatchConfig = field(default_factory=BatchConfig)

    def __post_init__(self) -> None:
        if self.cache_budget_bytes <= 0 or self.max_sessions <= 0 or self.max_chunk_rows <= 0:
            raise BadArgument("the cache budget, the number of sessions and the rows of a chunk must be positive")
        if self.max_answer_logits < 1:
            raise BadArgument("max_answer_logits must be positive")


@dataclass(frozen=True, slots=True)
class StepOutput:
    """payload: Rows for the next stage; from the last stage, one TopLogits per row that was asked for."""

    payload: Rows | tuple[TopLogits, ...]
    position: int  # tokens cached after the step
    queue_s: float
    compute_s: float


class Stage:
    """Serves the loaded layers of a SpanModel to sessions."""

    def __init__(
        self, args: ModelArgs, models: dict[Span, SpanModel], config: StageConfig, device: torch.device
    ) -> None:
        self.args = args
        self.config = config
        self.layer_time_s = 0.0
        self.queue = RecentQueue(time.monotonic)
        self._models = models
        self._loaded: tuple[Span, ...] | None = None  # None: all of every model
        self._device = device
        self._sessions: dict[SessionKey, StageSession] = {}
        self._orphans: dict[SessionKey, StageSession] = {}  # of those; the longest abandoned first
        self._reserved_bytes = 0
        self._pool = PagePool(config.cache_budget_bytes)
        self._compute = ComputeThread(compute_batch, config.batch)

    @property
    def spans(self) -> tuple[Span, ...]:
        return tuple(sorted(self._models))

    @property
    def models(self) -> tuple[SpanModel, ...]:
        return tuple(self._models.values())

    def set_loaded(self, spans: tuple[Span, ...] | None) -> None:
        """Of the hosted layers only these take sessions, until the next call; None: all of them, as at the start."""
        self._loaded = spans

    def heat(self) -> dict[int, tuple[float, ...]]:
        """By layer, as far as rows came through: each expert's share of the rows that its router sent out."""
        shares = next(iter(self._models.values())).experts.heat.shares()
        return {idx: shares[idx] for span in self._models for idx in span if idx in shares}

    def replace_models(self, models: dict[Span, SpanModel]) -> None:
        """Host these from now on, all of them loaded. Sessions on what is hosted no longer go on until they are closed,
        and keep their layers in memory for so long.
        """
        self._models = models
        self._loaded = None

    def sessions_beyond(self) -> list[StageSession]:
        """Sessions on layers that are hosted no longer."""
        return [s for s in self._sessions.values() if not any(hosted.covers(s.span) for hosted in self._models)]

    @property
    def n_sessions(self) -> int:
        """Sessions that somebody steps; not those that wait for a later epoch."""
        return len(self._sessions) - len(self._orphans)

    @property
    def n_orphans(self) -> int:
        return len(self._orphans)

    @property
    def cache_bytes(self) -> int:
        """Memory of all KV pages: of sessions, of prefixes that wait for their next session, and free ones."""
        return self._pool.size_bytes

    @property
    def free_sessions(self) -> int:
        """How many more sessions of a typical length (2048 positions, or the whole context if shorter) would be
        admitted.
        """
        typical = sum(self._session_bytes(span, min(2048, self.args.max_positions)) for span in self._models)
        reserved_bytes = self._reserved_bytes - sum(orphan.reserved_bytes for orphan in self._orphans.values())
        by_memory = (self.config.cache_budget_bytes - reserved_bytes) // max(1, typical)
        return max(0, min(self.config.max_sessions - self.n_sessions, by_memory))

    def open(
        self,
        key: SessionKey,
        epoch: int,
        span: Span,
        max_positions: int,
        n_top: int,
        prefix: Prefix | None = None,
        n_hops: int = 1,
        fed_positions: int = 0,
    ) -> StageSession:
        """Admit a session, reserving its cache; a newer epoch of a known session goes on with what the older one cached
        of its first fed_positions, or else replaces it. Orphans give way to it.

        n_hops: of its whole route.

        Raises: StaleEpoch; StageFull; RemoteProtocolError (layers not hosted here, or more positions than the model
        has).
        """
        hosted = next((hosted for hosted in self._models if hosted.covers(span)), None)
        if hosted is None:
            raise RemoteProtocolError(
                f"layers {span} are not hosted here; this node hosts {', '.join(map(str, self.spans))}"
            )
        if self._loaded is not None and not any(loaded.covers(span) for loaded in self._loaded):
            there = ", ".join(map(str, self._loaded)) or "none of them"
            raise StageFull(f"of layers {span}, {there} are loaded here so far", retry_after_s=5.0)
        if not 0 < max_positions <= self.args.max_positions:
            raise RemoteProtocolError(
                f"{max_positions} positions were asked for; the model has {self.args.max_positions}"
            )
        older = self._sessions.get(key)
        if older is not None:
            if older.epoch >= epoch:
                raise StaleEpoch(f"epoch {epoch} of the session was opened after epoch {older.epoch}")
            if (older.span, older.max_positions) == (span, max_positions) and min(fed_positions, older.length):
                self._orphans.pop(key, None)
                older.renew(epoch, n_top, n_hops, prefix.scope if prefix else b"", fed_positions)
                return older
            self.close(older)
        reserved_bytes = self._session_bytes(span, max_positions)
        while self._orphans and (
            len(self._sessions) >= self.config.max_sessions
            or self._reserved_bytes + reserved_bytes > self.config.cache_budget_bytes
        ):
            self.close(next(iter(self._orphans.values())))
        if len(self._sessions) >= self.config.max_sessions:
            raise StageFull(f"{len(self._sessions)} sessions are open, which is the most that this node takes")
        if self._reserved_bytes + reserved_bytes > self.config.cache_budget_bytes:
            raise StageFull(
                f"a cache of {max_positions} positions needs {reserved_bytes} bytes; {self._reserved_bytes} of "
                f"{self.config.cache_budget_bytes} are reserved: try later, or raise the node's --cache-budget"
            )
        model = self._models[hosted]
        cache = KVCache(
            self.args,
            span,
            dtype=model.dtype,
            device=self._device,
            max_positions=max_positions,
            pool=self._pool,
            keeps_rows=span.end < self.args.n_layers,
        )
        session = StageSession(key, epoch, span, model, cache, max_positions, n_top, reserved_bytes, n_hops)
        if prefix is not None:
            session.scope = prefix.scope
            self._find_pages(session, prefix)
        self._sessions[key] = session
        self._reserved_bytes += reserved_bytes
        return session

    def kept(self, session: StageSession, start: int, *, in_same_steps: bool) -> Iterator[Step]:
        """The rows from position `start` up to where this epoch begins, as steps for a next hop that begins at `start`.

        in_same_steps: as they came; else a page at a time. Raises: SessionLost, StaleEpoch, at any of them.
        """
        epoch, end = session.epoch, session.cached_positions
        for position, rows, page_hashes in session.kept(epoch, start, end, None if in_same_steps else PAGE):
            yield Step(epoch, position, rows_of(rows), 0, page_hashes=page_hashes)

    def close(self, session: StageSession) -> None:
        """Forget a session and what it reserved. Closing twice is closing once."""
        session.close()
        if self._sessions.get(session.key) is session:
            del self._sessions[session.key]
            self._orphans.pop(session.key, None)
            self._reserved_bytes -= session.reserved_bytes

    def abandon(self, session: StageSession, epoch: int) -> bool:
        """Nobody steps this epoch any more, but a later one may go on with what is cached. -> whether anything is.

        Does nothing to a session that a later epoch has taken over already.
        """
        if session.epoch != epoch or self._sessions.get(session.key) is not session:
            return False
        if not session.length:
            self.close(session)
            return False
        session.orphaned = True
        self._orphans[session.key] = session
        return True

    def close_epoch(self, session: StageSession, epoch: int) -> None:
        """Close the session, unless a later epoch has taken it over."""
        if session.epoch == epoch:
            self.close(session)

    async def step(self, session: StageSession, step: Step) -> StepOutput:
        """Run the session's layers over one chunk and extend its cache.

        A step at a smaller position than the cache's truncates it first; that is how speculation rolls back.
        Raises: SessionLost, StaleEpoch, PositionMismatch, RemoteProtocolError. A refused step changes nothing.
        """
        self._check(session, step)
        # While one half of the sessions waits for experts elsewhere, the other half is computed.
        n_batches = max(session.n_hops, 2) if session.model.trunks else session.n_hops
        group = (id(session.model), session.span)
        try:
            job = await self._compute.run(session, group, step.n_rows, (session, step), session.n_hops, n_batches)
        except torch.OutOfMemoryError:
            self.close(session)
            raise StageFull("the device ran out of memory in this step; try another node", retry_after_s=10.0) from None
        if step.n_rows == 1:
            layer_time_s = job.compute_s / len(session.span)
            self.layer_time_s += (layer_time_s - self.layer_time_s) * (0.1 if self.layer_time_s else 1.0)
        queue_s = job.started_s - job.queued_s
        self.queue.add(queue_s)
        return StepOutput(job.answer, step.position + step.n_rows, queue_s, job.compute_s)

    def shut_down(self) -> None:
        """Close every session and end the compute thread once the running step is done."""
        for session in list(self._sessions.values()):
            self.close(session)
        self._compute.close()

    def _check(self, session: StageSession, step: Step) -> None:
        if session.closed or session.orphaned:
            raise SessionLost("the session was closed on this stage; open a new epoch and replay")
        if step.epoch != session.epoch:
            raise StaleEpoch(f"a step of epoch {step.epoch} came into epoch {session.epoch}")
        if step.position + step.n_rows > session.max_positions:
            raise RemoteProtocolError(
                f"{step.n_rows} rows from position {step.position} on exceed the session's {session.max_positions}"
            )
        if not 0 < step.n_rows <= self.config.max_chunk_rows or step.n_logit_rows > step.n_rows:
            raise RemoteProtocolError(
                f"a step of {step.n_rows} rows with logits of {step.n_logit_rows}; "
                f"steps have 1 to {self.config.max_chunk_rows} rows and at most as many logits"
            )
        if step.allowed:
            self._check_allowed(step)
        n_logits = step.n_logit_rows * min(session.n_top, self.args.vocab_size)
        if n_logits > max(self.config.max_answer_logits, self.args.vocab_size):
            raise RemoteProtocolError(
                f"{step.n_logit_rows} rows of {session.n_top} logits are asked for at once, and "
                f"{self.config.max_answer_logits} logits are the most; ask for fewer rows"
            )
        from_ids = not isinstance(step.payload, Rows)
        if from_ids != (session.span.start == 0):
            raise RemoteProtocolError("token ids enter the first stage and hidden state every other one")
        if isinstance(step.payload, tuple) and not all(0 <= i < self.args.vocab_size for i in step.payload):
            raise RemoteProtocolError(f"a token id is outside of the vocabulary of {self.args.vocab_size}")

    def _check_allowed(self, step: Step) -> None:
        """The mask is a bit per id of this model's vocabulary, at least one of them set, for the one row of logits."""
        n_bytes = (self.args.vocab_size + 7) // 8
        if step.n_logit_rows != 1:
            raise RemoteProtocolError(
                f"a mask of allowed tokens came with {step.n_logit_rows} rows of logits; it is for exactly one"
            )
        if len(step.allowed) != n_bytes:
            raise RemoteProtocolError(
                f"a mask of {len(step.allowed)} bytes came; {self.args.vocab_size} token ids have one of {n_bytes}"
            )
        if step.allowed[-1] >> (self.args.vocab_size - 8 * (n_bytes - 1)) or not any(step.allowed):
            raise RemoteProtocolError(
                f"a mask allows no token at all, or tokens beyond the vocabulary of {self.args.vocab_size}"
            )

    def _find_pages(self, session: StageSession, prefix: Prefix) -> None:
        """Begin the session with the pages of its prefix that are here.

        At least one position of the session stays to be computed.
        """
        found = []
        for page_hash in prefix.page_hashes[: (session.max_positions - 1) // PAGE]:
            pages = self._pool.find((prefix.scope, page_hash))
            if pages is None:
                break
            found.append(pages)
        session.cache.adopt(found)
        session.cache.advance(0)  # a window gives back what it does not reach
        session.start_with(prefix.page_hashes[: len(found)])

    def _session_bytes(self, span: Span, positions: int) -> int:
        dtype = next(iter(self._models.values())).dtype
        return KVCache.size_bytes_for(self.args, span, positions, dtype, keeps_rows=span.end < self.args.n_layers)
