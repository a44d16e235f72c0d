"""The loop that makes tokens: find a route, step along it, sample, journal, show; and go on elsewhere when it
breaks.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import statistics
import time
from collections.abc import AsyncGenerator

from swarm.client.journal import Journal
from swarm.client.pace import Pace
from swarm.client.prefix import PageNames
from swarm.client.routes import RouteFinder
from swarm.client.session import CHUNK_TOKENS, HopFailed, RouteSession
from swarm.client.values import ClientRelease, Generation, Timings, TokenEvent, Usage
from swarm.errors import BadArgument, ContextLengthExceeded, DeadlineExceeded, SwarmError
from swarm.facts import Route
from swarm.grammar import Constraint, GrammarCompiler
from swarm.messages import Open, Result
from swarm.rpc import Dialer
from swarm.sampling import StopMatcher, sample
from swarm.terms import NodeId, SessionId, counted

log = logging.getLogger("swarm.client")

TELLING_STEPS = 8
"""Steps of one token whose median says how fast a route is."""


class TokenLoop:
    """One generation. Iterate it once; afterwards `generation` tells the whole."""

    def __init__(
        self, release: ClientRelease, dialer: Dialer, client_id: NodeId, finder: RouteFinder, journal: Journal,
        compiler: GrammarCompiler | None = None, page_secret: bytes = b"",
    ) -> None:  # fmt: skip
        self._release = release
        self._dialer = dialer
        self._client_id = client_id
        self._finder = finder
        self._journal = journal
        self._session_id = SessionId(os.urandom(16).hex())
        self._n_resumed = len(journal.emitted)
        self._pages = PageNames(journal, page_secret)
        self._prompt_tokens_cached = 0
        self._has_fed = False
        self._started_s = time.monotonic()
        self._first_token_s = 0.0
        self._n_replays = 0
        self._route: Route | None = None
        self._compiler = compiler
        self._constraint: Constraint | None = None
        exact = journal.grammar is not None and not journal.grammar.may_begin_with_space
        continues = journal.continues or exact
        self._decoder = release.tokenizer.stream(continues=continues) if release.tokenizer is not None else None
        self._stops = StopMatcher(journal.params.stop)
        self._text = ""
        self._finish_reason: str | None = None

    async def events(self) -> AsyncGenerator[TokenEvent, None]:
        """Each token once, in order; a resumed journal's tokens are not repeated.

        Raises: SwarmError when no route can go on; BadArgument for a grammar that cannot be used.
        """
        try:
            await self._compile_grammar()
            self._take_in_resumed()
            progress_s = time.monotonic()
            while self._finish_reason is None:
                n_before = len(self._journal.emitted)
                try:
                    async with contextlib.aclosing(self._along_one_route()) as events:
                        async for event in events:
                            yield event
                except HopFailed as fault:
                    if len(self._journal.emitted) > n_before:
                        progress_s = time.monotonic()
                    if time.monotonic() - progress_s >= self._finder.wait_s:
                        raise fault.error from fault
                    (lost, why), n_tokens = fault.loss, len(self._journal.emitted)
                    log.info("%s; going on after %s: %s", lost, counted(n_tokens, "token"), why)
                    self._finder.avoid(fault.node_ids, fault.error)
                    self._n_replays += 1
        finally:
            self._journal.close()

    @property
    def generation(self) -> Generation:
        """The answer so far; the whole once the events have ended. Cancelled when they were left early."""
        ids = tuple(token_id for token_id, _ in self._journal.emitted)
        now_s = time.monotonic() - self._started_s
        return Generation(
            text=self._text,
            ids=ids,
            finish_reason=self._finish_reason or "cancelled",
            usage=Usage(len(self._journal.prompt_ids), len(ids), self._prompt_tokens_cached),
            logprobs=tuple(logprob for _, logprob in self._journal.emitted),
            route=self._route,
            timings=Timings(self._first_token_s or now_s, now_s, self._n_replays, len(ids) - self._n_resumed),
            seed=self._journal.seed,
        )

    # -- one route -----------------------------------------------------------------------------------------------

    async def _along_one_route(self) -> AsyncGenerator[TokenEvent, None]:
        journal = self._journal
        route = await self._finder.find(journal.profile, self._route)
        journal.settle_profile(route.profile)
        self._route = route
        max_positions = min(len(journal.prompt_ids) + journal.params.max_tokens, self._release.args.max_positions)
        opening = Open(
            session_id=self._session_id,
            epoch=self._n_replays + 1,
            release=self._release.infohash,
            client_id=self._client_id,
            hops=route.hops,
            hop_idx=0,
            profile=route.profile,
            max_positions=max_positions,
            n_top=journal.params.n_top(self._release.args.vocab_size),
            page_hashes=self._pages.offered(route.profile),
            fed_positions=self._fed_positions(route) if self._has_fed else 0,
            known_positions=len(journal.ids),
        )
        name_pages = functools.partial(self._pages.completed, profile=route.profile)
        async with RouteSession(self._dialer, opening, name_pages) as session:
            n_found = session.n_cached_at_open
            if not self._has_fed:
                self._prompt_tokens_cached = min(n_found, len(journal.prompt_ids))
            self._has_fed = True
            n_cached = len(journal.ids)
            allowed = await self._allowed()
            result = await session.step(self._replay_chunks(route, n_found), n_found, allowed)
            steps_s: list[float] = []
            pace = Pace()
            while True:
                yield self._take(result, route, allowed)
                if len(steps_s) == TELLING_STEPS:
                    self._finder.learn(route, statistics.median(steps_s))
                    steps_s.clear()
                if self._finish_reason is not None:
                    return
                self._leave_slow_hop(pace, route)
                allowed = await self._allowed()
                began_s = time.monotonic()
                result = await session.step([journal.ids[n_cached:]], n_cached, allowed)
                steps_s.append(time.monotonic() - began_s)
                pace.note(result.hop_times)
                n_cached = len(journal.ids)

    def _leave_slow_hop(self, pace: Pace, route: Route) -> None:
        """Raises: HopFailed for a hop that has become slow, if another node can take its place."""
        slow = pace.slow_hop()
        if slow is not None and self._finder.could_spare(slow.node_id, route):
            why = f"a step takes {slow.now_s:.2f} s there, and took {slow.before_s:.2f} s"
            raise HopFailed(slow.node_id, DeadlineExceeded(why))

    def _replay_chunks(self, route: Route, n_found: int) -> list[list[int]]:
        """All that is known so far but for the n_found ids that need not be fed, in steps that leave the caches as they
        were.

        In bf16 that is not exact a row's bits depend on the chunk that it was computed in, so emitted tokens go one by
        one, as at first; otherwise large chunks are quicker.
        """
        prompt, ids = list(self._journal.prompt_ids), self._journal.ids
        chunked = ids if route.profile.is_chunk_invariant else prompt
        chunks = [chunked[i : i + CHUNK_TOKENS] for i in range(n_found, len(chunked), CHUNK_TOKENS)]
        return chunks + [[token_id] for token_id in ids[max(n_found, len(chunked)) :]]

    def _fed_positions(self, route: Route) -> int:
        """How much of what earlier epochs were fed is of use to this one: all but its last step, which brings the
        logits.
        """
        n_last = 1 if route.profile.is_chunk_invariant else len(self._replay_chunks(route, 0)[-1])
        return len(self._journal.ids) - n_last

    def _take(self, result: Result, route: Route, allowed: bytes) -> TokenEvent:
        """Sample, journal, then show."""
        journal, position = self._journal, len(self._journal.ids)
        try:
            sampled = sample(
                result.rows[0],
                journal.params,
                position,
                journal.seed,
                vocab_size=self._release.args.vocab_size,
                allowed=allowed,
            )
        except SwarmError as error:
            raise HopFailed(route.hops[-1].node_id, error) from error
        journal.emit(sampled.id, sampled.logprob)
        if self._constraint is not None:
            self._constraint.take(sampled.id)
        text = self._show(sampled.id, len(journal.emitted))
        elapsed_s = time.monotonic() - self._started_s
        self._first_token_s = self._first_token_s or elapsed_s
        return TokenEvent(
            len(journal.emitted) - 1, sampled.id, text, sampled.logprob, sampled.top, result.hop_times, elapsed_s
        )

    def _show(self, token_id: int, n_emitted: int) -> str:
        """The text that the n_emitted-th token lets out; sets the finish reason when the generation ends with it."""
        tokenizer, params = self._release.tokenizer, self._journal.params
        ended = tokenizer is not None and token_id == tokenizer.eos_id and not params.ignore_eos
        text = ""
        if self._decoder is not None and not ended:
            text = self._stops.push(self._decoder.push(token_id))
        complete = self._constraint is not None and self._constraint.is_finished
        if ended or complete or self._stops.is_stopped:
            self._finish_reason = "stop"
        elif (
            n_emitted >= params.max_tokens
            or len(self._journal.prompt_ids) + n_emitted >= self._release.args.max_positions
        ):
            self._finish_reason = "length"
        if self._finish_reason is not None and not self._stops.is_stopped and self._decoder is not None:
            text += self._stops.push(self._decoder.flush()) + self._stops.flush()
        self._text += text
        return text

    async def _compile_grammar(self) -> None:
        """In a thread: the first one reads the whole vocabulary, and others may take tens of milliseconds."""
        grammar = self._journal.grammar
        if grammar is None:
            return
        if self._compiler is None:
            raise BadArgument(f"{self._release.name} ships no tokenizer, so no grammar can be kept; leave it out")
        if self._journal.params.ignore_eos:
            raise BadArgument(
                "a grammar says where an answer ends, and ignore_eos goes on after it; leave out one of them"
            )
        self._constraint = await asyncio.to_thread(self._compiler.compile, grammar)

    async def _allowed(self) -> bytes:
        """The mask of the next token; empty without a grammar. In a thread: some take many milliseconds, during which
        other generations go on.
        """
        return b"" if self._constraint is None else await asyncio.to_thread(self._constraint.mask)

    def _take_in_resumed(self) -> None:
        """Bring the text up to what an earlier run had emitted; it may have been all."""
        for n_emitted, (token_id, _) in enumerate(self._journal.emitted, start=1):
            if self._constraint is not None:
                self._constraint.take(token_id)
            self._show(token_id, n_emitted)


def check_context(n_prompt: int, release: ClientRelease) -> None:
    """Raises: ContextLengthExceeded, BadArgument (empty prompt)."""
    most = release.args.max_positions
    if n_prompt == 0:
        raise BadArgument("the prompt is empty; give at least one token")
    if n_prompt >= most:
        raise ContextLengthExceeded(
            f"the prompt is {n_prompt} tokens, but {release.name} sees {most} at a time, "
            "the answer's included; shorten it"
        )
