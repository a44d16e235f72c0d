"""The web pages of a gateway: the chat at /, the swarm at /swarm, and the data that they ask for.

Serves only the files that lay in static/ when the routes were made, from memory: no path of a request reaches the
disk. Knows no dialect: the chat speaks to the same endpoints as any other client.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from swarm.gateway.models import ModelRegistry
from swarm.gateway.route_book import RouteBook
from swarm.gateway.swarm_state import SwarmState

STATIC = Path(__file__).parent / "static"

CONTENT_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """One file of static/, ready to be sent. etag: of its bytes, so that an upgrade is noticed at once."""

    body: bytes
    content_type: str
    etag: str

    @classmethod
    def read(cls, path: Path) -> StaticFile:
        body = path.read_bytes()
        return cls(body, CONTENT_TYPES[path.suffix], f'"{hashlib.sha256(body).hexdigest()[:32]}"')

    def response(self, request: Request) -> Response:
        headers = {**SECURITY_HEADERS, "ETag": self.etag, "Cache-Control": "no-cache"}
        if self.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(self.body, headers={**headers, "Content-Type": self.content_type})


def routes(registry: ModelRegistry, book: RouteBook | None = None) -> list[Route]:
    """/, /swarm, /static/…, /swarm/state.json and /swarm/routes/{answer id}.json.

    book: where the gateway notes the generations that it runs; without one no route is shown.
    The data is about the swarm and names no prompt, but it tells where nodes are: guard it like the API.
    """
    files = read_static(STATIC)
    book = book if book is not None else RouteBook()
    state = SwarmState(registry, book)

    async def chat(request: Request) -> Response:
        return files["chat/index.html"].response(request)

    async def swarm(request: Request) -> Response:
        return files["swarm/index.html"].response(request)

    async def static(request: Request) -> Response:
        file = files.get(request.path_params["path"])
        if file is None:
            return Response("there is no such file", status_code=404, media_type="text/plain", headers=SECURITY_HEADERS)
        return file.response(request)

    async def swarm_state(request: Request) -> Response:
        return JSONResponse(await state.fields(), headers=_DATA_HEADERS)

    async def route_taken(request: Request) -> Response:
        taken = book.find(request.path_params["answer_id"])
        if taken is None:
            message = (
                f"no answer {request.path_params['answer_id']!r} ran here lately; its route is kept for a while only"
            )
            return JSONResponse({"error": {"message": message}}, status_code=404, headers=_DATA_HEADERS)
        return JSONResponse(taken.fields(), headers=_DATA_HEADERS)

    return [
        Route("/", chat),
        Route("/swarm", swarm),
        Route("/static/{path:path}", static),
        Route("/swarm/state.json", swarm_state),
        Route("/swarm/routes/{answer_id}.json", route_taken),
    ]


def read_static(folder: Path) -> dict[str, StaticFile]:
    """Every file below folder, by its path in it."""
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix in CONTENT_TYPES]
    return {path.relative_to(folder).as_posix(): StaticFile.read(path) for path in paths}


_DATA_HEADERS = {**SECURITY_HEADERS, "Cache-Control": "no-store"}
