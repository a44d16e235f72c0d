"""The stage: hosted layers, the sessions on them, and what they may cache."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from node.model import PAGE, KVCache, PagePool, SpanModel
from node.stage.admission import Admission
from node.stage.batch import DECODE_ROWS
from node.stage.compute import compute_batch
from node.stage.config import StageConfig
from node.stage.prefixes import Prefix
from node.stage.queue import RecentQueue
from node.stage.rows import rows_of
from node.stage.scheduler import ComputeThread
from node.stage.session import SessionKey, StageSession
from swarm.errors import RemoteProtocolError, StageFull, StaleEpoch, SwarmError
from swarm.messages import Rows, Step, TopLogits
from swarm.release import ModelArgs
from swarm.terms import Span


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
        self._pool = PagePool(config.cache_budget_bytes)
        self._admission = Admission(
            config,
            self._pool,
            lambda session, positions: self._session_bytes(session.span, positions),
            lambda: self._compute.seconds_per_row,
        )
        self._compute = ComputeThread(
            functools.partial(compute_batch, make_room=self._admission.make_room), config.batch
        )

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
        sessions = self._admission.sessions()
        return [s for s in sessions if not any(hosted.covers(s.span) for hosted in self._models)]

    @property
    def n_sessions(self) -> int:
        """Sessions that somebody steps; not those that wait for a later epoch."""
        return sum(not session.orphaned for session in self._admission.sessions())

    @property
    def n_orphans(self) -> int:
        return sum(session.orphaned for session in self._admission.sessions())

    @property
    def cache_bytes(self) -> int:
        """Memory of all KV pages: of sessions, of prefixes that wait for their next session, and free ones."""
        return self._pool.size_bytes

    @property
    def free_sessions(self) -> int:
        """How many more sessions would be admitted, of those that had none here yet and of the usual length (2048
        positions before any has ended, or the whole context if shorter).
        """
        positions = min(self._admission.usual_positions, self.args.max_positions)
        return self._admission.room_for(sum(self._session_bytes(span, positions) for span in self._models))

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
        known_positions: int = 0,
    ) -> StageSession:
        """Admit a session, whose cache grows as it is stepped; a newer epoch of a known session goes on with what the
        older one cached of its first fed_positions, or else replaces it. Orphans give way to it.

        n_hops: of its whole route. known_positions: that its client has already and will feed at once.
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
        older = self._admission.get(key)
        if older is not None:
            if older.epoch >= epoch:
                raise StaleEpoch(f"epoch {epoch} of the session was opened after epoch {older.epoch}")
            if (older.span, older.max_positions) == (span, max_positions) and min(fed_positions, older.length):
                older.known_positions = known_positions
                older.renew(epoch, n_top, n_hops, prefix.scope if prefix else b"", fed_positions)
                self._admission.touch(older, 0)
                return older
            self.close(older)
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
        session = StageSession(key, epoch, span, model, cache, max_positions, n_top, known_positions, n_hops)
        if prefix is not None:
            session.scope = prefix.scope
            self._find_pages(session, prefix)
        try:
            self._admission.admit(session)
        except StageFull:
            session.close()
            raise
        return session

    def kept(self, session: StageSession, epoch: int, start: int, end: int, *, in_same_steps: bool) -> Iterator[Step]:
        """The rows of positions [start, end) as steps of this epoch, for a next hop that begins at `start`.

        in_same_steps: as they came; else a page at a time. Raises: SessionLost, StaleEpoch, at any of them.
        """
        for position, rows, page_hashes in session.kept(epoch, start, end, None if in_same_steps else PAGE):
            yield Step(epoch, position, rows_of(rows), 0, page_hashes=page_hashes)

    def close(self, session: StageSession) -> None:
        """Forget a session and what it cached. Closing twice is closing once."""
        self._admission.leave(session)
        session.close()

    def hand_over(self, why: SwarmError, sessions: Sequence[StageSession] | None = None) -> None:
        """Tell the clients of these sessions, by default of all, to go on elsewhere, for this reason."""
        for session in self._admission.sessions() if sessions is None else sessions:
            session.evict(why)
            self._admission.leave(session)

    def abandon(self, session: StageSession, epoch: int) -> bool:
        """Nobody steps this epoch any more, but a later one may go on with what is cached. -> whether anything is.

        Does nothing to a session that a later epoch has taken over already.
        """
        if session.epoch != epoch or self._admission.get(session.key) is not session:
            return False
        if not session.length:
            self.close(session)
            return False
        session.orphaned = True
        self._admission.touch(session, 0)
        return True

    def close_epoch(self, session: StageSession, epoch: int) -> None:
        """Close the session, unless a later epoch has taken it over."""
        if session.epoch == epoch:
            self.close(session)

    async def step(self, session: StageSession, step: Step) -> StepOutput:
        """Run the session's layers over one chunk and extend its cache.

        A step at a smaller position than the cache's truncates it first; that is how speculation rolls back.
        Raises: SessionLost, StaleEpoch, PositionMismatch, StageFull, RemoteProtocolError. A refused step changes
        nothing; but StageFull may end the session, to make room for others.
        """
        self._check(session, step)
        end = step.position + step.n_rows
        if step.n_rows > DECODE_ROWS and end > session.known_positions:
            self._admission.promise(session, end)
        self._admission.touch(session, 1)
        # While one half of the sessions waits for experts elsewhere, the other half is computed.
        n_batches = max(session.n_hops, 2) if session.model.trunks else session.n_hops
        group = id(session.model), session.span
        try:
            job = await self._compute.run(
                session.key, group, step.n_rows, (session, step), session.n_hops, n_batches, session.client
            )
        finally:
            self._admission.touch(session, -1)
        if step.n_rows == 1:
            layer_time_s = job.compute_s / len(session.span)
            self.layer_time_s += (layer_time_s - self.layer_time_s) * (0.1 if self.layer_time_s else 1.0)
        queue_s = job.started_s - job.queued_s
        self.queue.add(queue_s)
        return StepOutput(job.answer, end, queue_s, job.compute_s)

    def shut_down(self) -> None:
        """Close every session and end the compute thread once the running step is done."""
        for session in self._admission.sessions():
            self.close(session)
        self._compute.close()

    def _check(self, session: StageSession, step: Step) -> None:
        session.check_open(step.epoch)
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
