"""The gateway as one ASGI application: what answers which path, who may ask, and what is wrapped around it all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from swarm.errors import KeyRefused, TooManyRequests
from swarm.gateway import pages
from swarm.gateway.chat_request import CHAT_PATH, chat_request
from swarm.gateway.completion_requests import COMPLETIONS_PATH, FIM_PATH, completion_request, fim_request
from swarm.gateway.config import GatewayConfig
from swarm.gateway.dialects import OPENAI, dialect_of_head
from swarm.gateway.endpoint import GenerateEndpoint, answer_fault, authenticated
from swarm.gateway.faults import RETRY_AFTER_S, Fault
from swarm.gateway.model_list import list_fields, model_fields
from swarm.gateway.models import expert_words
from swarm.gateway.operations.asgi import ASGIApp
from swarm.gateway.operations.drain import Drain
from swarm.gateway.operations.fences import Fence, FenceConfig
from swarm.gateway.operations.logs import RequestLog, RequestRecord, note_handler
from swarm.gateway.services import Services

Handler = Callable[[Request], Awaitable[Response]]

HTTP_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

LOOK_TIMEOUT_S = 2.0
"""How long a scrape waits for the nodes before it tells what was known before."""

PATH_KINDS = {404: "not_found", 405: "method_not_allowed"}


def make_app(services: Services) -> tuple[ASGIApp, Drain]:
    """The application, and what drains it. From the outside in: log, fences, drain, routes, keys."""
    config = services.config
    drain = Drain(routed(services), bound_s=config.drain_timeout_s)
    fence = Fence(drain, fence_config(config))

    def count(record: RequestRecord) -> None:
        method = record.method if record.method in HTTP_METHODS else "other"
        services.metrics.observe_http(method, record.handler, record.status, record.duration_s)

    return RequestLog(fence, on_done=count), drain


def fence_config(config: GatewayConfig) -> FenceConfig:
    """Besides what was said, a name that is listened on is one to be reached by."""
    return FenceConfig(hosts=(*config.hosts, *_listened_name(config)), origins=config.cors)


def routed(services: Services) -> ASGIApp:
    """Every path. Those of the API, of the metrics and of the swarm's data ask for a key where there are keys."""
    operations = Operations(services)
    open_routes = [
        Route("/health", operations.health),
        Route("/ready", operations.ready),
    ]
    guarded_routes = [
        Route("/metrics", operations.metrics),
        Route("/v1/models", operations.models),
        Route("/v1/models/{model_id:path}", operations.model),
    ]
    for route in pages.routes(services.registry, services.book):
        (guarded_routes if route.path.endswith(".json") else open_routes).append(route)
    for route in open_routes:
        route.app = Named(route.path, route.app)
    for route in guarded_routes:
        route.app = Guarded(route.path, route.app, services)
    generating = [
        GenerateEndpoint(CHAT_PATH, chat_request, services),
        GenerateEndpoint(COMPLETIONS_PATH, completion_request, services),
        GenerateEndpoint(FIM_PATH, fim_request, services),
    ]
    generating_routes = [Route(endpoint.path, endpoint, methods=["POST"]) for endpoint in generating]
    everything = Starlette(
        routes=[*generating_routes, *guarded_routes, *open_routes],
        exception_handlers={404: no_such_path, 405: no_such_path},
    )
    return Shortcut({endpoint.path: endpoint for endpoint in generating}, everything)


class Shortcut:
    """A POST to one of these paths goes straight to what answers it: layers of a framework would cost at every token.
    Everything else goes to `others`.
    """

    def __init__(self, posts: Mapping[str, ASGIApp], others: ASGIApp) -> None:
        self._posts = posts
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._posts.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        await (app or self._others)(scope, receive, send)


class Operations:
    """What says how the gateway is, and what it serves."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def health(self, request: Request) -> Response:
        """It lives, whatever becomes of the swarm."""
        return JSONResponse({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """200 once every layer of every model has a host. What is served, and what is missing, is for callers with a
        key: a probe shows none, and needs the status alone.
        """
        seen = await self._services.registry.readiness()
        is_ready = all(one.is_ready for one in seen)
        body: dict[str, Any] = {"ready": is_ready}
        if await self._is_known(request.scope):
            body["models"] = [
                {
                    "name": one.name,
                    "ready": one.is_ready,
                    "problem": one.problem,
                    "n_layers": None if one.status is None else one.status.n_layers,
                    "missing_layers": [] if one.status is None else list(one.status.missing_layers),
                    "missing_experts": [] if one.status is None else expert_words(one.status.missing_experts),
                }
                for one in seen
            ]
        headers = {} if is_ready else {"Retry-After": str(int(RETRY_AFTER_S))}
        return JSONResponse(body, 200 if is_ready else 503, headers={**headers, "Cache-Control": "no-store"})

    async def _is_known(self, scope: Scope) -> bool:
        """Whether the caller shows a key, where there are keys. A wrong one is as good as none."""
        try:
            await authenticated(scope, self._services)
        except (KeyRefused, TooManyRequests):
            return False
        return True

    async def metrics(self, request: Request) -> Response:
        registry, metrics = self._services.registry, self._services.metrics
        with contextlib.suppress(TimeoutError):  # a node that says nothing must not hold up the scrape
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                await registry.readiness()
        for model in registry.models:
            status = registry.last_status(model)
            if status is not None:
                metrics.saw_swarm(model.name, status)
        body, content_type = metrics.render()
        return Response(body, headers={"Content-Type": content_type})

    async def models(self, request: Request) -> Response:
        return JSONResponse(list_fields(self._services.registry.models))

    async def model(self, request: Request) -> Response:
        """Raises: UnknownModel, ModelNotOpen, which the guard around it answers."""
        return JSONResponse(model_fields(self._services.registry.get(request.path_params["model_id"])))


class Named:
    """Tells the log and the metrics which route serves a request."""

    def __init__(self, path: str, app: ASGIApp) -> None:
        self._path = path
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        note_handler(self._path)
        await self._app(scope, receive, send)


class Guarded(Named):
    """As Named, for callers that show a key where there are keys; and what the route raises is answered."""

    def __init__(self, path: str, app: ASGIApp, services: Services) -> None:
        super().__init__(path, app)
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await authenticated(scope, self._services)
            await super().__call__(scope, receive, send)
        except Exception as error:  # the top of a request: every failure becomes an answer here
            dialect = dialect_of_head(scope["path"], scope["headers"]) or OPENAI
            await answer_fault(send, dialect, error, self._services)


async def no_such_path(request: Request, error: Exception) -> Response:
    """A path or a method that this gateway does not have."""
    assert isinstance(error, HTTPException)
    dialect = dialect_of_head(request.url.path, request.scope["headers"]) or OPENAI
    method = f"the method {request.method} of " if error.status_code == 405 else ""
    message = f"{method}{request.url.path[:200]} does not exist here; see GET /v1/models for what is served"
    fault = Fault(error.status_code, message, code=PATH_KINDS[error.status_code])
    headers: dict[str, Any] = dict(error.headers or {})
    status, body = dialect.error(fault)
    return JSONResponse(body, status, headers=headers)


def _listened_name(config: GatewayConfig) -> tuple[str, ...]:
    host = config.listen.host
    return () if config.listen.is_unspecified or ":" in host else (host,)
