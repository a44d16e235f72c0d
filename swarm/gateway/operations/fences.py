"""Which browsers may reach the gateway: Host and Origin checked on every request, CORS for listed origins only.

A page anywhere can point its own name at 127.0.0.1 (DNS rebinding) and then read what this port answers; the browser
gives it away by the Host header, which is that name. An IP address cannot be rebound, so it is always taken. A page of
another origin gives itself away by the Origin header. Programs that are no browsers send none, and are let through.
Source: Fetch standard, sections 3.2 (CORS protocol) and 2.3; RFC 6454 (origins); WICG private network access.
"""

from __future__ import annotations

import ipaddress
import logging
import re
from dataclasses import dataclass
from typing import NamedTuple

from swarm.errors import BadArgument
from swarm.gateway.operations.asgi import ASGIApp, Message, Receive, Scope, Send, header_values, send_error

logger = logging.getLogger(__name__)

DEFAULT_PORTS = {"http": 80, "https": 443}
HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::(\d{1,5}))?")
ORIGIN = re.compile(r"(https?)://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::(\d{1,5}))?", re.IGNORECASE)
HEADER_NAMES = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,2000}")
PREFLIGHT_MAX_AGE_S = 600
METHODS = "GET, POST, OPTIONS"
EXPOSED = "x-request-id, retry-after, warning"


class Authority(NamedTuple):
    host: str
    port: int | None


@dataclass(frozen=True, slots=True)
class FenceConfig:
    """hosts: names, besides loopback's and any IP address, that this gateway is reached by; a port in them is ignored.
    origins: pages that may call it from elsewhere, such as https://chat.example.org; `*` lets every page in.

    Raises: BadArgument.
    """

    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for host in self.hosts:
            if parse_host(host) is None:
                raise BadArgument(f"{host!r} is not a host name; write it as in an address, such as chat.example.org")
        for origin in self.origins:
            if origin != "*" and parse_origin(origin) is None:
                raise BadArgument(f"{origin!r} is not an origin; write SCHEME://HOST[:PORT], or * for any page")


class Fence:
    """ASGI middleware: refuses requests for other names (421) and from other origins (403), and speaks CORS.

    Belongs around everything that answers, /health and /metrics too: they tell about the machine as well.
    """

    def __init__(self, app: ASGIApp, config: FenceConfig | None = None) -> None:
        config = config or FenceConfig()
        self._app = app
        self._hosts = frozenset(name.host for host in config.hosts if (name := parse_host(host)))
        self._allows_all = "*" in config.origins
        self._origins = frozenset(parsed for origin in config.origins if (parsed := parse_origin(origin)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        hosts, origins = header_values(scope, b"host"), header_values(scope, b"origin")
        host = parse_host(hosts[0]) if len(hosts) == 1 else None
        if host is None or not self._is_ours(host.host):
            await refuse_host(hosts, send)
            return
        if not origins:
            await self._app(scope, receive, send)
            return
        origin = origins[0] if len(origins) == 1 else ""
        if self._is_listed(origin):
            await self._answer_listed(origin, scope, receive, send)
        elif is_same_origin(origin, host):
            await self._app(scope, receive, send)
        else:
            await refuse_origin(origin, send)

    def _is_ours(self, host: str) -> bool:
        return host == "localhost" or host.endswith(".localhost") or is_ip_address(host) or host in self._hosts

    def _is_listed(self, origin: str) -> bool:
        return self._allows_all or parse_origin(origin) in self._origins

    async def _answer_listed(self, origin: str, scope: Scope, receive: Receive, send: Send) -> None:
        allowed = [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"origin")]
        if scope["method"] == "OPTIONS" and header_values(scope, b"access-control-request-method"):
            await send({"type": "http.response.start", "status": 204, "headers": [*allowed, *preflight_headers(scope)]})
            await send({"type": "http.response.body", "body": b""})
            return

        async def send_with_cors(message: Message) -> None:
            if message["type"] == "http.response.start":
                exposed = (b"access-control-expose-headers", EXPOSED.encode())
                message = {**message, "headers": [*message.get("headers", ()), *allowed, exposed]}
            await send(message)

        await self._app(scope, receive, send_with_cors)


def preflight_headers(scope: Scope) -> list[tuple[bytes, bytes]]:
    """What a listed page may send: the methods of the API, and whichever headers it asks for by well-formed names."""
    headers = [
        (b"access-control-allow-methods", METHODS.encode()),
        (b"access-control-max-age", str(PREFLIGHT_MAX_AGE_S).encode()),
    ]
    asked = ", ".join(header_values(scope, b"access-control-request-headers"))
    if HEADER_NAMES.fullmatch(asked):
        headers.append((b"access-control-allow-headers", asked.encode("latin-1")))
    if header_values(scope, b"access-control-request-private-network") == ["true"]:
        headers.append((b"access-control-allow-private-network", b"true"))
    return headers


def parse_host(text: str) -> Authority | None:
    """`localhost:8000` -> (localhost, 8000); an IPv6 address without its brackets, a name without a last dot."""
    match = HOST.fullmatch(text)
    return None if match is None else authority(match[1], match[2])


def parse_origin(text: str) -> tuple[str, Authority] | None:
    """`https://a.b` -> (https, (a.b, 443)); None for `null` and for what is not http."""
    match = ORIGIN.fullmatch(text)
    if match is None:
        return None
    scheme = match[1].lower()
    host = authority(match[2], match[3])
    return scheme, Authority(host.host, DEFAULT_PORTS[scheme] if host.port is None else host.port)


def authority(host: str, port: str | None) -> Authority:
    return Authority(host.strip("[]").lower().removesuffix("."), None if port is None else int(port))


def is_same_origin(origin: str, host: Authority) -> bool:
    """Whether a page served from this Host has that Origin. The scheme is the page's: a proxy may have ended TLS."""
    parsed = parse_origin(origin)
    if parsed is None:
        return False
    scheme, served = parsed
    return served == Authority(host.host, DEFAULT_PORTS[scheme] if host.port is None else host.port)


def is_ip_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def refuse_host(hosts: list[str], send: Send) -> None:
    asked = hosts[0] if len(hosts) == 1 else f"{len(hosts)} Host headers"
    logger.warning("refused a request for the host %r", asked[:200])
    message = (
        f"this gateway is not {asked[:200]!r}; use its IP address or localhost, or start it with --host NAME for each "
        "name that it is to be reached by"
    )
    await send_error(send, 421, "host_not_allowed", message)


async def refuse_origin(origin: str, send: Send) -> None:
    logger.warning("refused a request from the origin %r", origin[:200])
    message = f"pages of {origin[:200]!r} may not call this gateway; start it with --cors ORIGIN to let them"
    await send_error(send, 403, "origin_not_allowed", message)
