"""The endpoints that generate: a request comes in as ASGI has it, and is let in, read, answered and accounted for."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from starlette.types import Receive, Scope, Send

from swarm.gateway.answers import Answer, event_bytes
from swarm.gateway.asked import Asked
from swarm.gateway.bodies import ClientGone, parse_json, read_body
from swarm.gateway.config import GatewayConfig
from swarm.gateway.connection import DONE, Headers, send_bytes, send_events, send_json, unless_gone
from swarm.gateway.dialects import OPENAI, Dialect, dialect_of_body, dialect_of_head
from swarm.gateway.faults import Fault, Refused, fault_of
from swarm.gateway.generating import Generating, Piece
from swarm.gateway.models import ModelRegistry
from swarm.gateway.operations.asgi import header_values
from swarm.gateway.operations.keys import Caller
from swarm.gateway.operations.ledger import UsageEntry
from swarm.gateway.operations.logs import note_fields, note_handler, request_id
from swarm.gateway.services import Services

log = logging.getLogger("swarm.gateway")

ReadRequest = Callable[[dict[str, Any], Dialect, ModelRegistry, GatewayConfig], Asked]


class GenerateEndpoint:
    """ASGI application of one path. read_request: makes of a body what it asks for."""

    def __init__(self, path: str, read_request: ReadRequest, services: Services) -> None:
        self.path = path
        self._read_request = read_request
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        note_handler(self.path)
        by_head = dialect_of_head(scope["path"], scope["headers"])
        spoken = [by_head or OPENAI]
        try:
            caller = await authenticated(scope, self._services)
            self._services.limits.arrive(caller)
            asked = await self._asked(caller, scope, receive, by_head, spoken)
            note_fields(model=asked.model.name, key=caller.key_name, dialect=spoken[0].manner.name)
            await unless_gone(receive, self._answer(caller, asked, spoken[0], send))
        except ClientGone:
            return
        except Exception as error:  # the top of a request: every failure becomes an answer here
            await answer_fault(send, spoken[0], error, self._services)

    async def _asked(
        self, caller: Caller, scope: Scope, receive: Receive, by_head: Dialect | None, spoken: list[Dialect]
    ) -> Asked:
        """What the body asks for. spoken: its first is the dialect that errors are told in, once the body tells."""
        services, config = self._services, self._services.config
        with services.reading.place(caller.key_name) as take_room:
            try:
                async with asyncio.timeout(config.header_timeout_s):
                    raw = await read_body(scope, receive, config.max_body_bytes, take_room)
            except TimeoutError:
                message = f"the request's body did not arrive within {config.header_timeout_s:g} s"
                raise Refused(Fault(408, message, code="timeout")) from None

            def reading() -> Asked:
                body = parse_json(raw, config.max_json_depth)
                spoken[0] = by_head or dialect_of_body(body)
                return self._read_request(body, spoken[0], services.registry, config)

            return await services.reading.read(len(raw), reading)

    async def _answer(self, caller: Caller, asked: Asked, dialect: Dialect, send: Send) -> None:
        services = self._services
        started_s = time.time()
        prefix = "chatcmpl-" if asked.is_chat else "cmpl-"
        answer_id = prefix + secrets.token_hex(12)
        with services.metrics.begin(asked.model.name) as meter:
            async with services.limits.admit(caller, asked.most_tokens, len(asked.choices)) as admission:
                meter.admitted()
                texts = services.token_texts(asked.model) if asked.params.logprobs is not None else None
                answer = Answer(asked, dialect, answer_id, int(started_s), texts)
                generating = Generating(asked, answer_id, meter, services.book, caller.key_name)
                reason = "error"
                try:
                    await self._send(generating, answer, asked, dialect, send)
                    reason = generating.finish_reason
                except (asyncio.CancelledError, ClientGone):
                    # Whoever hangs up at a stream's [DONE] has had all of it.
                    reason = generating.finish_reason if asked.is_streamed and generating.is_whole else "cancelled"
                    raise
                finally:
                    usage = generating.usage
                    admission.settle(usage.total_tokens)
                    meter.finish(reason, usage.prompt_tokens, generating.n_replays)
                    note_fields(
                        tokens_in=usage.prompt_tokens, tokens_out=usage.completion_tokens, finish_reason=reason,
                        first_token_s=meter.first_token_s, n_replays=generating.n_replays,
                    )  # fmt: skip
                    services.record(
                        UsageEntry(
                            request_id=request_id(),
                            key_name=caller.key_name,
                            model=asked.model.name,
                            endpoint=asked.endpoint,
                            tokens_in=usage.prompt_tokens,
                            tokens_out=usage.completion_tokens,
                            started_s=started_s,
                            finished_s=time.time(),
                            finish_reason=reason,
                            nodes=generating.tally.shares,
                        )
                    )

    async def _send(self, generating: Generating, answer: Answer, asked: Asked, dialect: Dialect, send: Send) -> None:
        headers = ignored_headers(asked.ignored)
        if asked.is_streamed:
            await send_events(send, events_of(generating, answer, asked, dialect), headers)
            return
        async with aclosing(generating.pieces()) as pieces:
            async for piece in pieces:
                answer.take(piece)
        await send_bytes(send, 200, answer.whole(generating.usage), headers)


async def events_of(
    generating: Generating, answer: Answer, asked: Asked, dialect: Dialect
) -> AsyncGenerator[bytes, None]:
    """The stream of one request. What goes wrong after it began is its last event; DONE comes as one with the last
    chunk, since every message costs as much as a token.
    """
    has_begun = False
    n_unfinished = len(asked.choices)
    try:
        async with aclosing(generating.pieces()) as pieces:
            async for piece in pieces:
                if piece.finish_reason is None:
                    event = answer.chunk(piece)
                else:
                    n_unfinished -= 1
                    event = _last_chunk(answer, piece, generating, dialect, is_last=n_unfinished == 0)
                    if n_unfinished == 0:
                        is_told_apart = asked.streams_usage and not dialect.manner.always_streams_usage
                        event += (answer.usage_chunk(generating.usage) if is_told_apart else b"") + DONE
                if event:
                    has_begun = True
                    yield event
    except Exception as error:  # the stream cannot take its status back any more
        if not has_begun:
            raise
        generating.finish_reasons[0] = "error"  # whatever the first answer had come to
        fault = fault_of(error)
        _log_fault(fault, error)
        yield event_bytes(dialect.error(fault)[1]) + DONE


def _last_chunk(answer: Answer, piece: Piece, generating: Generating, dialect: Dialect, *, is_last: bool) -> bytes:
    usage = generating.usage if is_last and dialect.manner.always_streams_usage else None
    return answer.finish_chunk(piece, usage)


async def authenticated(scope: Scope, services: Services) -> Caller:
    """Raises: KeyRefused, TooManyRequests."""
    given = header_values(scope, b"authorization")
    return await services.keys.authenticate(given[0] if len(given) == 1 else None)  # of two, others may heed the other


async def answer_fault(send: Send, dialect: Dialect, error: Exception, services: Services) -> None:
    """Say what went wrong, in the caller's dialect."""
    fault = fault_of(error)
    services.metrics.rejected(_rejection(fault))
    note_fields(error=fault.code or fault.kind)
    _log_fault(fault, error)
    status, body = dialect.error(fault)
    await send_json(send, status, body, fault.headers)


def ignored_headers(names: tuple[str, ...]) -> Headers:
    """A warning that names the fields which were not heeded. Source: RFC 7234, section 5.5.7 (299: miscellaneous)."""
    if not names:
        return ()
    sane = ", ".join("".join(c if c.isalnum() or c in "_-." else "?" for c in name[:60]) for name in names[:16])
    return ((b"warning", f'299 swarm "ignored unknown fields: {sane}"'.encode("ascii", "replace")),)


def _rejection(fault: Fault) -> str:
    by_status = {401: "unauthorized", 429: "rate_limited", 503: "not_ready", 504: "not_ready"}
    return by_status.get(fault.status, "bad_request" if fault.status < 500 else "error")


def _log_fault(fault: Fault, error: Exception) -> None:
    if fault.code == "internal_error":
        log.error("a request failed", exc_info=error)
    elif fault.status >= 500:
        log.warning("%s", fault.message)
