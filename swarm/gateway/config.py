"""What a gateway is told: what it serves, where it listens, whom it lets in, and what it bears."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from swarm.errors import BadArgument
from swarm.gateway.operations.limits import LimitsConfig
from swarm.terms import Address


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """One gateway's settings, checked when built. Raises: BadArgument.

    magnets: the releases, one link or catalogue's name each. listen: port 0 takes any free one.
    api_keys: accepted keys in clear, from flags or the environment; keys_file: hashed ones, as `swarm gateway-keys`
    writes them. With neither, everybody who reaches the port is served: only loopback may be listened on then.
    hosts: names that the Host header may have besides the address itself and loopback's names. cors: origins whose
    pages may call (none by default).
    limits: what one caller, and all of them, may have at a time.
    ledger_file: where usage is kept; None keeps none.
    default_max_tokens: of an answer whose request names no limit; every stage sets memory aside for all of them.
    max_choices: answers to one request (n, times its prompts): each is a session on every stage.
    max_body_bytes: of one request; a body is held in memory as a whole. max_json_depth: of nesting within it.
    max_reading_bytes: of all bodies that are being read; more lets more large requests come at a time.
    max_connections: at a time, each a file descriptor; those beyond are closed at once.
    header_timeout_s: how long a connection may take over one request's head. drain_timeout_s: how long running answers
    may go on once the gateway was told to stop.
    network, bootstrap, peers, data_dir, timeout_s, publishers: as for the client (`swarm.client.connect_async`).
    """

    magnets: tuple[str, ...]
    listen: Address = field(default_factory=lambda: Address("127.0.0.1", 8000))
    api_keys: tuple[str, ...] = ()
    keys_file: Path | None = None
    hosts: tuple[str, ...] = ()
    cors: tuple[str, ...] = ()
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    ledger_file: Path | None = None
    default_max_tokens: int = 2048
    max_choices: int = 16
    max_body_bytes: int = 4 << 20
    max_json_depth: int = 64
    max_reading_bytes: int = 64 << 20
    max_connections: int = 512
    header_timeout_s: float = 15.0
    drain_timeout_s: float = 30.0
    network: str | None = None
    bootstrap: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    data_dir: Path | None = None
    timeout_s: float = 60.0
    publishers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.magnets:
            raise BadArgument("a gateway needs at least one magnet link to serve")
        if not (self.listen.is_loopback or self.has_keys):
            raise BadArgument(
                f"--listen {self.listen} lets anyone in who reaches this machine; ask for a key (--api-key KEY or "
                "--keys FILE), or listen on 127.0.0.1"
            )
        for name in ("default_max_tokens", "max_choices", "max_body_bytes", "max_json_depth", "max_connections"):
            if getattr(self, name) < 1:
                raise BadArgument(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.max_reading_bytes < 2 * self.max_body_bytes:
            raise BadArgument(
                f"max_reading_bytes is {self.max_reading_bytes}; it must hold two bodies of {self.max_body_bytes} bytes"
            )
        if self.drain_timeout_s < 0:
            raise BadArgument(f"drain_timeout_s is {self.drain_timeout_s}; it must not be negative")
        for name in ("header_timeout_s", "timeout_s"):
            if not getattr(self, name) > 0:
                raise BadArgument(f"{name} is {getattr(self, name)}; it must be positive")
        for origin in self.cors:
            if origin != "*" and re.fullmatch(r"https?://[^/\s?#@]+", origin) is None:
                raise BadArgument(
                    f"{origin!r} is not an origin; write SCHEME://HOST[:PORT], such as http://localhost:3000"
                )

    @property
    def has_keys(self) -> bool:
        """Whether a caller must show a key."""
        return bool(self.api_keys) or self.keys_file is not None
