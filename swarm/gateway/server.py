"""A gateway on its port: listening at once, answering until it is told to stop, draining then."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from collections.abc import Callable, Iterator
from functools import partial
from types import TracebackType
from typing import Any

import uvicorn

from swarm.errors import ListenError
from swarm.gateway.app import make_app
from swarm.gateway.config import GatewayConfig
from swarm.gateway.listener import BoundedProtocol, Turns
from swarm.gateway.models import ModelRegistry
from swarm.gateway.services import Services
from swarm.terms import Address

KEEP_ALIVE_S = 75.0
"""Longer than clients keep an idle connection, so that they and not we close it: ours would meet their next request."""

BACKLOG = 1024
CLOSE_WITHIN_S = 2
"""How long connections may take to notice that an answer has ended, once draining is over."""


class Gateway:
    """Async context manager: listens when entered, drains when left. address: where it listens, its true port in it.

    Raises: BadArgument, MagnetError, ListenError.
    """

    def __init__(self, config: GatewayConfig) -> None:
        self._services = Services.make(config)
        app, self.drain = make_app(self._services)
        self._config = config
        protocol: Any = partial(
            BoundedProtocol,
            head_timeout_s=config.header_timeout_s,
            max_connections=config.max_connections,
            turns=Turns(),
        )
        self._server = _Server(
            uvicorn.Config(
                app,
                http=protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                proxy_headers=False,
                timeout_keep_alive=int(KEEP_ALIVE_S),
                timeout_graceful_shutdown=CLOSE_WITHIN_S,
            )
        )
        self._serving: asyncio.Task[None] | None = None
        self.address = config.listen

    @property
    def url(self) -> str:
        host = "127.0.0.1" if self.address.host == "0.0.0.0" else "::1" if self.address.host == "::" else None
        return f"http://{self.address if host is None else Address(host, self.address.port)}"

    @property
    def services(self) -> Services:
        return self._services

    async def __aenter__(self) -> Gateway:
        listening = listen(self._config.listen)
        host, port = listening.getsockname()[:2]
        self.address = Address(host, port)
        await self._services.registry.__aenter__()
        self._serving = asyncio.create_task(self._server.serve(sockets=[listening]))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.drain.is_draining:
            self.drain.begin()
        await self.drain.wait()
        self._server.should_exit = True
        if self._serving is not None:
            await self._serving
        await self._services.registry.__aexit__(kind, error, trace)
        await self._services.close()


async def serve(config: GatewayConfig, on_listening: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT, then drain; a second one hurries. on_listening: called with the URL."""
    async with Gateway(config) as gateway:
        gateway.drain.install()
        on_listening(gateway.url)
        settling = asyncio.create_task(settle(gateway.services.registry))
        await gateway.drain.wait()
        settling.cancel()


async def settle(registry: ModelRegistry) -> None:
    """Once everything is open, exempt what is there from garbage collection: tokenizers and libraries stay for good,
    and looking through all of it now and then would hold up every stream.
    """
    await registry.wait_open()
    gc.collect()
    gc.freeze()


def listen(address: Address) -> socket.socket:
    """A socket bound to it. Raises: ListenError."""
    try:
        family = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((address.host, address.port))
            listening.listen(BACKLOG)
            listening.setblocking(False)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        raise ListenError(
            f"cannot listen on {address}: {error.strerror or error}; choose another with --listen HOST:PORT"
        ) from error
    return listening


class _Server(uvicorn.Server):
    """Leaves the process's signals alone: draining has them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
