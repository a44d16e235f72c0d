"""What a gateway is told: what it serves, where it listens, whom it lets in, and what it bears."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from swarm.errors import BadArgument
from swarm.terms import Address


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """One gateway's settings, checked when built. Raises: BadArgument.

    magnets: the releases, one link each. listen: port 0 takes any free one.
    api_keys: accepted keys in clear, from flags or the environment; keys_file: hashed ones, as `swarm gateway-keys` writes
    them. With neither, everybody who reaches the port is served, so that only loopback may be listened on.
    hosts: names that the Host header may have besides the address itself and loopback's names. cors: origins whose
    pages may call (none by default).
    requests_per_min, tokens_per_min: per key, 0: unbounded. max_concurrent: requests that generate at once, in all;
    max_concurrent_per_key: of one key; max_waiting: that may queue behind them before 429. Raising any of these raises
    what one caller can take from the others, and the memory that waiting requests hold.
    ledger_file: where usage is kept; None keeps none. prices_file: checked at start, for `swarm usage`.
    max_body_bytes: of one request; a body is held in memory as a whole. max_json_depth: of nesting within it.
    header_timeout_s: how long a connection may take over one request's head. drain_timeout_s: how long running answers
    may go on once the gateway was told to stop.
    network, bootstrap, peers, data_dir, timeout_s: as for the client (`swarm.client.connect_async`).
    """

    magnets: tuple[str, ...]
    listen: Address = Address("127.0.0.1", 8000)
    api_keys: tuple[str, ...] = ()
    keys_file: Path | None = None
    hosts: tuple[str, ...] = ()
    cors: tuple[str, ...] = ()
    requests_per_min: float = 0.0
    tokens_per_min: float = 0.0
    max_concurrent: int = 64
    max_concurrent_per_key: int = 32
    max_waiting: int = 128
    ledger_file: Path | None = None
    prices_file: Path | None = None
    max_body_bytes: int = 4 << 20
    max_json_depth: int = 64
    header_timeout_s: float = 15.0
    drain_timeout_s: float = 30.0
    network: str | None = None
    bootstrap: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    data_dir: Path | None = None
    timeout_s: float = 60.0

    def __post_init__(self) -> None:
        if not self.magnets:
            raise BadArgument("a gateway needs at least one magnet link to serve")
        if not (self.listen.is_loopback or self.has_keys):
            raise BadArgument(
                f"--listen {self.listen} lets anyone in who reaches this machine; ask for a key (--api-key KEY or "
                "--keys FILE), or listen on 127.0.0.1"
            )
        for name in ("max_concurrent", "max_concurrent_per_key", "max_body_bytes", "max_json_depth"):
            if getattr(self, name) < 1:
                raise BadArgument(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("requests_per_min", "tokens_per_min", "max_waiting", "drain_timeout_s"):
            if getattr(self, name) < 0:
                raise BadArgument(f"{name} is {getattr(self, name)}; it must not be negative")
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
