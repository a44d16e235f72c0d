"""One request's generations, side by side: tokens become pieces of answers, and are counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from swarm.client import Generation, TokenEvent, Usage
from swarm.gateway.asked import Asked, Prompt
from swarm.gateway.operations.ledger import NodeTally
from swarm.gateway.operations.metrics import RequestMeter
from swarm.gateway.prompts import tokenizer_of
from swarm.gateway.route_book import RouteBook
from swarm.gateway.tool_calls import ToolCall, ToolCallReader
from swarm.sampling import SamplingParams

MAX_PIECES_WAITING = 8
"""Of each answer of several: what it may run ahead of a connection that takes it slowly. More is made, and charged, for
nothing when the caller leaves.
"""


@dataclass(frozen=True, slots=True)
class Piece:
    """What one token, or the end, adds to an answer.

    event: the token's own; None at the end, which alone has a finish_reason: stop, length, full_context or tool_calls.
    is_told: whether the token belongs to the answer's text: not one that ends it, or that is part of a call.
    """

    choice_idx: int
    text: str
    calls: tuple[ToolCall, ...] = ()
    event: TokenEvent | None = None
    is_told: bool = True
    finish_reason: str | None = None


class Generating:
    """All answers to one request: iterate pieces() once; leaving it early ends every session on every stage.

    Afterwards, and at any time before, the properties tell what it took.
    """

    def __init__(self, asked: Asked, answer_id: str, meter: RequestMeter, book: RouteBook, key_name: str) -> None:
        self._asked = asked
        self._key_name = key_name
        self._answer_id = answer_id
        self._meter = meter
        self._book = book
        self._tally = NodeTally()
        self._results: dict[int, Generation] = {}
        self.finish_reasons: dict[int, str] = {}

    @property
    def usage(self) -> Usage:
        n_cached = sum(r.usage.prompt_tokens_cached for i, r in self._results.items() if i % self._asked.n == 0)
        return Usage(self._asked.n_prompt_tokens, self._meter.n_tokens, n_cached)

    @property
    def tally(self) -> NodeTally:
        return self._tally

    @property
    def n_replays(self) -> int:
        return sum(result.timings.n_replays for result in self._results.values())

    @property
    def finish_reason(self) -> str:
        """The first answer's; cancelled while it has none."""
        return self.finish_reasons.get(0, "cancelled")

    @property
    def is_whole(self) -> bool:
        """Whether every answer has come to its end."""
        return len(self.finish_reasons) == len(self._asked.choices)

    def pieces(self) -> AsyncGenerator[Piece, None]:
        """Raises: SwarmError, whichever answer it is that cannot go on."""
        answers = [self._answer(i, prompt, params) for i, (prompt, params) in enumerate(self._asked.choices)]
        return answers[0] if len(answers) == 1 else _side_by_side(answers)

    async def _answer(self, choice_idx: int, prompt: Prompt, params: SamplingParams) -> AsyncGenerator[Piece, None]:
        asked = self._asked
        model = asked.model
        generation = model.client.stream(
            prompt.ids, params, grammar=asked.grammar, continues=prompt.continues, on_behalf_of=self._key_name
        )
        reader = ToolCallReader(tokenizer_of(model), asked.tools) if asked.tools else None
        tokenizer = model.client.release.tokenizer
        eos_id = tokenizer.eos_id if tokenizer is not None and not params.ignore_eos else -1
        hops: tuple[str, ...] = ()
        route = None
        try:
            async with generation:
                with self._book.following(self._answer_id, model.name, lambda: generation.result):
                    async for event in generation:
                        self._meter.token(choice_idx)
                        seen = tuple([hop.node_id for hop in event.hop_times])
                        if route is None or seen != hops:  # asking for the result costs more than a token should
                            hops, route = seen, generation.result.route
                        self._tally.take(event.hop_times, route)
                        if reader is None:
                            yield Piece(choice_idx, event.text, (), event, event.id != eos_id)
                        else:
                            was_in_call = reader.is_in_call
                            text, calls = reader.push(event.id, event.text)
                            is_told = event.id != eos_id and not (was_in_call or reader.is_in_call)
                            yield Piece(choice_idx, text, calls, event, is_told)
        finally:
            self._results[choice_idx] = generation.result
        text, calls = reader.finish() if reader is not None else ("", ())
        has_calls = reader is not None and reader.n_calls > 0
        reason = self._finish_reason(self._results[choice_idx], prompt, params, has_calls)
        self.finish_reasons[choice_idx] = reason
        yield Piece(choice_idx, text, calls, None, False, reason)

    def _finish_reason(self, result: Generation, prompt: Prompt, params: SamplingParams, has_calls: bool) -> str:
        if result.finish_reason == "length":
            return "length" if len(result.ids) >= params.max_tokens else "full_context"
        return "tool_calls" if has_calls else result.finish_reason


async def _side_by_side(answers: Sequence[AsyncGenerator[Piece, None]]) -> AsyncGenerator[Piece, None]:
    """The pieces of all as they come. The first failure ends them all."""
    arrived: asyncio.Queue[Piece | BaseException | None] = asyncio.Queue(MAX_PIECES_WAITING * len(answers))

    async def pump(answer: AsyncGenerator[Piece, None]) -> None:
        try:
            async with aclosing(answer):
                async for piece in answer:
                    await arrived.put(piece)
        except Exception as error:  # handed to whoever iterates
            await arrived.put(error)
        else:
            await arrived.put(None)

    pumps = [asyncio.create_task(pump(answer)) for answer in answers]
    n_left = len(pumps)
    try:
        while n_left:
            piece = await arrived.get()
            if piece is None:
                n_left -= 1
            elif isinstance(piece, BaseException):
                raise piece
            else:
                yield piece
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
