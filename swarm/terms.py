"""The words that every room shares: ids, spans, addresses, profiles. Knows no room, no IO and no third-party
package.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NewType

from swarm.errors import BadArgument

NodeId = NewType("NodeId", str)
"""A node's ed25519 public key: 52 characters of lowercase base32 (RFC 4648) without padding."""

Infohash = NewType("Infohash", str)
"""A release's name: 40 lowercase hex digits. The v1 infohash where the torrent has one, else the truncated v2 one."""

SessionId = NewType("SessionId", str)
"""32 lowercase hex digits, drawn at random by the client. Unguessable: it is not repeated to nodes off the route."""

_INFOHASH = re.compile(r"[0-9a-f]{40}")
_NODE_ID = re.compile(r"[a-z2-7]{52}")

WIRE_DTYPES = ("fp32", "bf16")
"""The dtypes that hidden state may travel in."""


def is_infohash(text: str) -> bool:
    return _INFOHASH.fullmatch(text) is not None


def is_node_id(text: str) -> bool:
    return _NODE_ID.fullmatch(text) is not None


def short_id(node_id: str) -> str:
    """The first 8 characters: for people, never for comparison."""
    return node_id[:8]


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Layers [start, end), never empty."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise BadArgument(f"span {self.start}:{self.end} is empty or negative; write START:END with START < END")

    @classmethod
    def parse(cls, text: str) -> Span:
        """`"0:8"` -> Span(0, 8). Raises: BadArgument."""
        match = re.fullmatch(r"\s*(\d{1,6})\s*:\s*(\d{1,6})\s*", text)
        if match is None:
            raise BadArgument(f"{text!r} is not a span of layers; write START:END, such as 0:8 for the first eight")
        return cls(int(match[1]), int(match[2]))

    def __len__(self) -> int:
        return self.end - self.start

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.end))

    def __contains__(self, layer_idx: object) -> bool:
        return isinstance(layer_idx, int) and self.start <= layer_idx < self.end

    def __str__(self) -> str:
        return f"{self.start}:{self.end}"

    def covers(self, other: Span) -> bool:
        return self.start <= other.start and other.end <= self.end


def merge_spans(spans: list[Span] | tuple[Span, ...]) -> tuple[Span, ...]:
    """The same layers as sorted, disjoint, non-adjacent spans."""
    merged: list[Span] = []
    for span in sorted(spans):
        if merged and span.start <= merged[-1].end:
            merged[-1] = Span(merged[-1].start, max(merged[-1].end, span.end))
        else:
            merged.append(span)
    return tuple(merged)


@dataclass(frozen=True, slots=True, order=True)
class ExpertId:
    """The feed-forward network `expert_idx` of layer `layer_idx`."""

    layer_idx: int
    expert_idx: int


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """Where to dial or listen: a host name or literal, and a port (0: any free one, for listening only)."""

    host: str
    port: int

    def __post_init__(self) -> None:
        if not self.host or any(c.isspace() or c in "/@[]," for c in self.host) or len(self.host) > 253:
            raise BadArgument(f"{self.host!r} is not a host name or IP address")
        if not 0 <= self.port <= 65535:
            raise BadArgument(f"port {self.port} is not between 0 and 65535")

    @classmethod
    def parse(cls, text: str) -> Address:
        """`"host:port"` or `"[v6]:port"` -> Address. Raises: BadArgument."""
        match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^:\[\]\s]+)):(\d{1,5})", text.strip())
        if match is None:
            raise BadArgument(f"{text!r} is not an address; write HOST:PORT, such as 127.0.0.1:7000 or [::1]:7000")
        return cls(match[1] or match[2], int(match[3]))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        return (
            self.host == "localhost" or self.host == "::1" or re.fullmatch(r"127(\.\d{1,3}){3}", self.host) is not None
        )

    @property
    def is_unspecified(self) -> bool:
        return self.host in ("0.0.0.0", "::")


@dataclass(frozen=True, slots=True)
class Profile:
    """The numerics that a stage promises. Its name, such as `bf16` or `fp32`, travels in facts and in Open.

    A session stays within one profile: two stages of one profile compute the same function of the same bytes. A name
    is a dtype and nothing more; any other is refused.
    """

    dtype: str

    def __post_init__(self) -> None:
        if self.dtype not in WIRE_DTYPES:
            raise BadArgument(f"profile {self.dtype!r} is unknown; this version runs {' and '.join(WIRE_DTYPES)}")

    @classmethod
    def parse(cls, text: str) -> Profile:
        return cls(text)

    def __str__(self) -> str:
        return self.dtype
