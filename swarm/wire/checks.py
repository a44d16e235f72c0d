"""The bounds of everything that a remote may say, and the checks that hold them. Each raises RemoteProtocolError."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from swarm.errors import BadArgument, RemoteProtocolError
from swarm.pages import PAGE_HASH_BYTES
from swarm.terms import Address, Infohash, NodeId, Profile, SessionId, Span, is_node_id
from swarm.wire.v1 import stage_pb2 as pb

MAX_STRUCTURE_BYTES = 1 << 20
"""Of a message without its tensor: a parser may spend 50 times a message's length on many empty submessages."""

MAX_ROWS = 1 << 16
MAX_POSITIONS = 1 << 24
MAX_HOPS = 256
MAX_LAYERS = 1 << 16
MAX_EXPERTS = 1 << 10
"""Of one layer: eight times the most that any release has."""
MAX_TOP = 1 << 20
"""Logits per row: above any vocabulary."""
MAX_ALLOWED_BYTES = (1 << 18) // 8
"""Of a step's mask, a bit per token id: twice the largest vocabulary that is."""
MAX_COUNTER = (1 << 63) - 1
"""Of epochs, sequence numbers and byte counts: what a signed 64-bit integer of another language still holds."""
MAX_TIME_S = 1e12
"""Above any time in seconds, since the Unix epoch too; keeps sums of times finite."""
MAX_THROUGHPUT = 1e9
"""Tokens per second: far above any machine."""

AnyMessage = TypeVar("AnyMessage", bound=Message)


def check(holds: bool, problem: str) -> None:
    if not holds:
        raise RemoteProtocolError(f"{problem}: the sender breaks the protocol, or speaks another version of it")


def parse(kind: type[AnyMessage], data: bytes, max_bytes: int = MAX_STRUCTURE_BYTES) -> AnyMessage:
    check(len(data) <= max_bytes, f"a {kind.__name__} of {len(data)} bytes is over its limit of {max_bytes}")
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise RemoteProtocolError(f"not a {kind.__name__}: {error}") from None


def check_number(value: int, low: int, high: int, name: str) -> int:
    check(low <= value <= high, f"{name} {value} is not within {low} to {high}")
    return value


def check_seconds(value: float, name: str) -> float:
    check(0.0 <= value <= MAX_TIME_S, f"{name} {value} is no length of time")  # NaN fails both comparisons
    return value


def check_throughput(value: float) -> float:
    check(0.0 <= value <= MAX_THROUGHPUT, f"throughput {value} is no number of tokens per second")
    return value


def check_finite(values: Iterable[float], name: str) -> None:
    check(all(map(math.isfinite, values)), f"{name} that is not a finite number")


def check_node_id(text: str) -> NodeId:
    check(is_node_id(text), f"{text[:60]!r} is not a node id")
    return NodeId(text)


def check_session_id(raw: bytes) -> SessionId:
    check(len(raw) == 16, f"a session id of {len(raw)} bytes instead of 16")
    return SessionId(raw.hex())


def check_infohash(raw: bytes) -> Infohash:
    check(len(raw) == 20, f"an infohash of {len(raw)} bytes instead of 20")
    return Infohash(raw.hex())


def check_page_hashes(raw: Iterable[bytes]) -> tuple[bytes, ...]:
    """Does not check how many there are."""
    hashes = tuple(raw)
    for page_hash in hashes:
        check(len(page_hash) == PAGE_HASH_BYTES, f"a page hash of {len(page_hash)} bytes instead of {PAGE_HASH_BYTES}")
    return hashes


def check_address(text: str) -> Address:
    """An address to dial: its port is not 0."""
    try:
        address = Address.parse(text)
    except BadArgument as error:
        raise RemoteProtocolError(error.message) from None
    check(address.port != 0 and address.host.isprintable(), f"nobody can dial {text[:300]!r}")
    return address


def check_profile(text: str) -> Profile:
    try:
        return Profile.parse(text)
    except BadArgument as error:
        raise RemoteProtocolError(error.message[:300]) from None


def check_span(wire: pb.Span, n_layers: int = MAX_LAYERS) -> Span:
    check(0 <= wire.start < wire.end <= n_layers, f"span {wire.start}:{wire.end} of {n_layers} layers")
    return Span(wire.start, wire.end)


def printable(text: str, max_characters: int) -> str:
    """For people to read: cut to length, and without the control characters that could steer a terminal."""
    return "".join(c if c.isprintable() else "�" for c in text[:max_characters])
