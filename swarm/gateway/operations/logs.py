"""Request ids and the log: one JSON object a line, one line a request, never a prompt or an answer.

A request's id is in every line that is logged while it is served, in the answer's X-Request-ID, and in the ledger. The
middleware is plain ASGI. Does NOT log queries or bodies; header values only as far as the id goes.
"""

from __future__ import annotations

import contextlib
import contextvars
import json
import logging
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TextIO

from swarm.gateway.operations.asgi import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("swarm.gateway.access")

REQUEST_ID_HEADER = b"x-request-id"
SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
MAX_LOGGED_CHARS = 2000
READY_PATH = "/ready"
STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

current_record: contextvars.ContextVar[RequestRecord | None] = contextvars.ContextVar("request", default=None)


@dataclass(slots=True)
class RequestRecord:
    """What becomes a request's line in the log. status: 0 while nothing was answered, 499 when the caller left first.

    handler: the route's path as the app names it; the app sets it, "other" until then.
    fields: what handlers add with note_fields(): model, key, tokens, finish_reason. Never text of a prompt.
    """

    request_id: str
    method: str
    path: str
    client: str
    started_s: float
    handler: str = "other"
    status: int = 0
    sent_bytes: int = 0
    duration_s: float = 0.0
    fields: dict[str, Any] = field(default_factory=dict)


def request_id() -> str:
    """The id of the request that is being served; "" outside of one."""
    record = current_record.get()
    return "" if record is None else record.request_id


def note_fields(**fields: Any) -> None:
    """Add to the line of the request that is being served. Nothing happens outside of one."""
    record = current_record.get()
    if record is not None:
        record.fields.update(fields)


def note_handler(handler: str) -> None:
    """Name the route that serves this request (`/v1/models/{id}`), for its line and its metrics."""
    record = current_record.get()
    if record is not None:
        record.handler = handler


class RequestLog:
    """ASGI middleware: gives each request its id and logs its end. Belongs outside of every other one.

    An X-Request-ID that came is kept if it is 1 to 128 letters, digits and the signs . _ : -; else one is made.
    on_done: called with each record as it is logged (for metrics). A caller that leaves before the answer's end has
    status 499, as nginx writes it.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        on_done: Callable[[RequestRecord], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._on_done = on_done
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = RequestRecord(
            sane_request_id(scope), scope["method"], scope["path"], client_of(scope), started_s=time.time()
        )
        with recording(record):
            await self._serve(record, scope, receive, send)

    async def _serve(self, record: RequestRecord, scope: Scope, receive: Receive, send: Send) -> None:
        began_s = self._clock()
        is_whole = False

        async def send_with_id(message: Message) -> None:
            nonlocal is_whole
            if message["type"] == "http.response.start":
                record.status = message["status"]
                headers = [pair for pair in message.get("headers", ()) if pair[0].lower() != REQUEST_ID_HEADER]
                message = {**message, "headers": [*headers, (REQUEST_ID_HEADER, record.request_id.encode())]}
            elif message["type"] == "http.response.body":
                record.sent_bytes += len(message.get("body", b""))
                is_whole = not message.get("more_body", False)
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            record.status = record.status or 500
            record.fields.setdefault("error", "unhandled")
            raise
        finally:
            record.duration_s = self._clock() - began_s
            if not is_whole and record.status < 500:
                record.status = 499
            log_request(record)
            if self._on_done is not None:
                self._on_done(record)


@contextlib.contextmanager
def recording(record: RequestRecord) -> Iterator[None]:
    token = current_record.set(record)
    try:
        yield
    finally:
        current_record.reset(token)


def log_request(record: RequestRecord) -> None:
    """As logger.log(…, extra=line_of(record)), but for looking up who called: that takes longer than all the rest."""
    level = level_of(record)
    if logger.isEnabledFor(level):
        words = (record.method, record.path, record.status)
        line = logging.LogRecord(logger.name, level, "", 0, "%s %s %d", words, None)
        vars(line).update(line_of(record))
        logger.handle(line)


def line_of(record: RequestRecord) -> dict[str, Any]:
    return {
        "method": record.method,
        "path": record.path[:MAX_LOGGED_CHARS],
        "handler": record.handler,
        "status": record.status,
        "client": record.client,
        "sent_bytes": record.sent_bytes,
        "duration_ms": round(record.duration_s * 1000, 3),
        **{name: value for name, value in record.fields.items() if name not in STANDARD_FIELDS},
    }


def level_of(record: RequestRecord) -> int:
    """A 503 is what whoever asks /ready came to hear, again and again: no trouble of its own."""
    if record.status == 503:
        return logging.INFO if record.path == READY_PATH else logging.WARNING
    return logging.ERROR if record.status >= 500 else logging.INFO


def sane_request_id(scope: Scope) -> str:
    """The id that came with the request if it can be trusted not to garble a log, else a new one."""
    for name, value in scope["headers"]:
        if name.lower() == REQUEST_ID_HEADER:
            text = value.decode("latin-1")
            return text if SANE_ID.fullmatch(text) else new_request_id()
    return new_request_id()


def new_request_id() -> str:
    return f"req-{uuid.uuid4().hex}"


def client_of(scope: Scope) -> str:
    return scope["client"][0] if scope.get("client") else ""


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, request_id, what `extra` brought, and an error's traceback.

    Strings are cut at 2,000 characters; control characters are escaped, so that no caller can forge a line.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[:MAX_LOGGED_CHARS],
        }
        if request_id():
            line["request_id"] = request_id()
        for name, value in vars(record).items():
            if name not in STANDARD_FIELDS and name not in line:
                line[name] = value[:MAX_LOGGED_CHARS] if isinstance(value, str) else value
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def log_as_json(level: int = logging.INFO, stream: TextIO | None = None) -> logging.Handler:
    """Send this program's log lines to `stream` (stderr) as JSON; remove the handler that is returned to undo it."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    ours = logging.getLogger("swarm")
    ours.addHandler(handler)
    ours.setLevel(level)
    return handler
