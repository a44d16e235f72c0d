"""The words that every room shares: ids, spans, addresses, profiles. Knows no room, no IO and no third-party
package.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
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
_PROFILE = re.compile(r"(fp32|bf16-int4|bf16(-int8)?(-exact-[a-z0-9]{1,16}-[0-9a-f]{6})?)")

WIRE_DTYPES = ("fp32", "bf16")
"""The dtypes that hidden state may travel in."""


def is_infohash(text: str) -> bool:
    return _INFOHASH.fullmatch(text) is not None


def is_node_id(text: str) -> bool:
    return _NODE_ID.fullmatch(text) is not None


def short_id(node_id: str) -> str:
    """The first 8 characters: for people, never for comparison."""
    return node_id[:8]


@lru_cache(maxsize=16_384)  # every exchange asks for that of each node that is known
def id_tag(node_id: NodeId) -> int:
    """The key's first 8 bytes: names a node where many are listed. Two of one tag are not met by chance."""
    return int.from_bytes(base64.b32decode(node_id[:16].upper())[:8])


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
    if len(spans) < 2:  # nearly all calls are for one span, and a large swarm makes very many
        return tuple(spans)
    merged: list[Span] = []
    for span in sorted(spans):
        if merged and span.start <= merged[-1].end:
            merged[-1] = Span(merged[-1].start, max(merged[-1].end, span.end))
        else:
            merged.append(span)
    return tuple(merged)


def subtract_spans(spans: Iterable[Span], gone: Iterable[Span]) -> tuple[Span, ...]:
    """The layers of spans that are not among those gone, as sorted, disjoint spans."""
    left = list(spans)
    for taken in gone:
        cut = [(span.start, min(span.end, taken.start)) for span in left]
        cut += [(max(span.start, taken.end), span.end) for span in left]
        left = [Span(start, end) for start, end in cut if start < end]
    return merge_spans(left)


@dataclass(frozen=True, slots=True, order=True)
class ExpertId:
    """The feed-forward network `expert_idx` of layer `layer_idx`."""

    layer_idx: int
    expert_idx: int


@dataclass(frozen=True, slots=True, order=True)
class ExpertRange:
    """The experts `expert_idxs` (ascending, at least one) of each of these layers."""

    layers: Span
    expert_idxs: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.expert_idxs or list(self.expert_idxs) != sorted(set(self.expert_idxs)) or self.expert_idxs[0] < 0:
            raise BadArgument(f"the experts {self.expert_idxs} are not ascending, or none at all")

    def __len__(self) -> int:
        return len(self.layers) * len(self.expert_idxs)

    def __iter__(self) -> Iterator[ExpertId]:
        return (ExpertId(layer_idx, expert_idx) for layer_idx in self.layers for expert_idx in self.expert_idxs)

    def __str__(self) -> str:
        """As `--experts` takes it: 0-31:0-2,5 for experts 0 to 2 and 5 of the layers 0 to 31."""
        last = f"-{self.layers.end - 1}" if len(self.layers) > 1 else ""
        runs: list[list[int]] = []
        for expert_idx in self.expert_idxs:
            if runs and runs[-1][-1] == expert_idx - 1:
                runs[-1].append(expert_idx)
            else:
                runs.append([expert_idx])
        words = [f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs]
        return f"{self.layers.start}{last}:{','.join(words)}"


def merge_experts(experts: Iterable[ExpertId]) -> tuple[ExpertRange, ...]:
    """The same experts as sorted ranges: a run of layers of which the same ones are named is one of them."""
    by_layer: dict[int, tuple[int, ...]] = {}
    for expert in sorted(set(experts)):
        by_layer[expert.layer_idx] = (*by_layer.get(expert.layer_idx, ()), expert.expert_idx)
    ranges: list[ExpertRange] = []
    for layer_idx, expert_idxs in by_layer.items():
        if ranges and ranges[-1].layers.end == layer_idx and ranges[-1].expert_idxs == expert_idxs:
            ranges[-1] = ExpertRange(Span(ranges[-1].layers.start, layer_idx + 1), expert_idxs)
        else:
            ranges.append(ExpertRange(Span(layer_idx, layer_idx + 1), expert_idxs))
    return tuple(ranges)


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """Where to dial or listen: a host name or literal, and a port (0: any free one, for listening only).

    target: '' for who listens there; else the id of a node that nobody can dial, and the relay that reaches it does.
    """

    host: str
    port: int
    target: str = ""

    def __post_init__(self) -> None:
        if self.target and not is_node_id(self.target):
            raise BadArgument(f"{self.target[:60]!r} is not a node id; a node behind a relay is NODEID@HOST:PORT")
        if not self.host or any(c.isspace() or c in "/@[]," for c in self.host) or len(self.host) > 253:
            raise BadArgument(f"{self.host!r} is not a host name or IP address")
        if not 0 <= self.port <= 65535:
            raise BadArgument(f"port {self.port} is not between 0 and 65535")

    @classmethod
    def parse(cls, text: str) -> Address:
        """`"host:port"`, `"[v6]:port"` or, through a relay, `"nodeid@host:port"` -> Address. Raises: BadArgument."""
        match = re.fullmatch(r"(?:([a-z2-7]{52})@)?(?:\[([0-9A-Fa-f:.%]+)\]|([^:\[\]\s]+)):(\d{1,5})", text.strip())
        if match is None:
            raise BadArgument(f"{text!r} is not an address; write HOST:PORT, such as 127.0.0.1:7000 or [::1]:7000")
        return cls(match[2] or match[3], int(match[4]), match[1] or "")

    def __str__(self) -> str:
        where = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        return f"{self.target}@{where}" if self.target else where

    @property
    def short(self) -> str:
        """For people: `abcdefgh@192.0.2.1:7000` through a relay."""
        return f"{short_id(self.target)}@{self.relay}" if self.target else str(self)

    @property
    def relay(self) -> Address:
        """The relay alone, of an address that leads through one."""
        return Address(self.host, self.port)

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
    """The numerics that a stage promises, by a name that travels in facts and in Open.

    `bf16`, `fp32`, `bf16-int8`: dtype, and quantisation of the layers' matrices. `bf16-exact-amx-3fa2c1`: the same
    bits, whatever is computed beside a row and however it is cut into chunks, on every node of this very name. For
    that it states the instructions and a fingerprint of what they compute; the others promise no bits and so name no
    machine.
    """

    dtype: str
    quantisation: str = ""
    exactness: str = ""
    """'' or INSTRUCTIONS-FINGERPRINT, such as amx-3fa2c1"""

    def __post_init__(self) -> None:
        if not _PROFILE.fullmatch(str(self)):
            raise BadArgument(
                f"profile {str(self)[:80]!r} is unknown; this version runs {' and '.join(WIRE_DTYPES)}, bf16 also "
                "quantised (bf16-int8, bf16-int4) or exact (bf16-exact-…)"
            )

    @classmethod
    def parse(cls, text: str) -> Profile:
        head, _, exactness = text.partition("-exact-")
        dtype, _, quantisation = head.partition("-")
        profile = cls(dtype, quantisation, exactness)
        if str(profile) != text:
            raise BadArgument(f"profile {text[:80]!r} is unknown")
        return profile

    def __str__(self) -> str:
        exactness = self.exactness and f"exact-{self.exactness}"
        return "-".join(filter(None, (self.dtype, self.quantisation, exactness)))

    @property
    def base(self) -> Profile:
        """The same numerics without the promise of bits."""
        return Profile(self.dtype, self.quantisation)

    @property
    def is_chunk_invariant(self) -> bool:
        """Whether ids may be fed in other chunks than before. In fp32 no token has been seen to change by it."""
        return self.dtype == "fp32" or bool(self.exactness)

    def satisfies(self, wanted: Profile) -> bool:
        """Whether a node of this profile can serve a session of the wanted one: its promise may be more, never less."""
        return wanted in (self, self.base)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about this machine that was looked at. state: 'ok'; 'note', where it could be better; 'bad', where it
    keeps a node from serving; 'unknown', where nobody could say. mend: what to do about it, '' where nothing need be.
    """

    name: str
    state: str
    says: str
    mend: str = ""


def counted(n: int, noun: str) -> str:
    """`1 node`, `2 nodes`: how many of what, for people. noun: one that takes an s."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def machine_of(host: str) -> str:
    """The same for all addresses that one machine may easily have: an IPv4 address, or an IPv6 /64.

    Raises: ValueError for a name.
    """
    address = ipaddress.ip_address(host.partition("%")[0])
    return str(address if address.version == 4 else ipaddress.IPv6Network((int(address), 64), strict=False))
