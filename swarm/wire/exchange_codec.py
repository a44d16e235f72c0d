"""The messages that pass facts on, native <-> proto. A fact that cannot be read is left out, and no fault of its
bearer.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from swarm.errors import RemoteProtocolError
from swarm.facts import Known, SignedFact
from swarm.terms import Infohash
from swarm.wire.checks import MAX_STRUCTURE_BYTES, check, check_infohash, check_number, parse, printable
from swarm.wire.fact_codec import from_wire_signed_fact, to_wire_signed_fact
from swarm.wire.v1 import node_pb2 as pb

MAX_FACTS = 1024
"""In one message."""
MAX_KNOWN = 2048
"""Nodes whose sequence numbers one request lists."""
MAX_PROBLEM_CHARACTERS = 200


def encode_exchange_request(release: Infohash, facts: Sequence[SignedFact], known: Known | None = None) -> bytes:
    """known None: the asker knows nothing."""
    request = pb.ExchangeRequest(release=bytes.fromhex(release), facts=map(to_wire_signed_fact, _fitting(facts)))
    if known is not None:
        request.known.first, request.known.last = known.first, known.last
        request.known.tags.extend(known.seqs.keys())
        request.known.seqs.extend(known.seqs.values())
    return request.SerializeToString()


def decode_exchange_request(data: bytes) -> tuple[Infohash, tuple[SignedFact, ...], Known]:
    wire = parse(pb.ExchangeRequest, data)
    known = _from_wire_known(wire.known) if wire.HasField("known") else Known()
    return check_infohash(wire.release), _from_wire_facts(wire.facts), known


def encode_exchange_reply(facts: Sequence[SignedFact], more: bool) -> bytes:
    """more: there are others; said too where not all of these fit."""
    fitting = _fitting(facts)
    is_cut = more or len(fitting) < len(facts)
    return pb.ExchangeReply(facts=map(to_wire_signed_fact, fitting), more=is_cut).SerializeToString()


def decode_exchange_reply(data: bytes) -> tuple[tuple[SignedFact, ...], bool]:
    wire = parse(pb.ExchangeReply, data)
    return _from_wire_facts(wire.facts), wire.more


def encode_dial_back_request(port: int) -> bytes:
    return pb.DialBackRequest(port=port).SerializeToString()


def decode_dial_back_request(data: bytes) -> int:
    return check_number(parse(pb.DialBackRequest, data).port, 1, 65535, "port")


def encode_dial_back_reply(host: str, problem: str) -> bytes:
    """problem: why the caller was not reached; '' when it was."""
    return pb.DialBackReply(
        host=host, reached=not problem, problem=problem[:MAX_PROBLEM_CHARACTERS]
    ).SerializeToString()


def decode_dial_back_reply(data: bytes) -> tuple[str, str]:
    wire = parse(pb.DialBackReply, data)
    problem = "" if wire.reached else printable(wire.problem, MAX_PROBLEM_CHARACTERS) or "it did not say why"
    return _check_host(wire.host), problem


def _check_host(text: str) -> str:
    """An IP address, without the interface of the machine that sees it. Raises: RemoteProtocolError."""
    try:
        return str(ipaddress.ip_address(text.partition("%")[0]))
    except ValueError:
        raise RemoteProtocolError(f"{text[:60]!r} is no IP address, and nobody is dialled at a name") from None


def _from_wire_known(wire: pb.Known) -> Known:
    check(len(wire.tags) == len(wire.seqs) <= MAX_KNOWN, f"{len(wire.tags)} tags of {len(wire.seqs)} known facts")
    return Known(wire.first, wire.last, dict(zip(wire.tags, wire.seqs, strict=True)))


def _fitting(facts: Sequence[SignedFact]) -> Sequence[SignedFact]:
    """As many of the first facts as the other side reads in one message."""
    room = MAX_STRUCTURE_BYTES // 2
    for n, signed in enumerate(facts[:MAX_FACTS]):
        room -= len(signed.payload) + 128  # the signature and the fields' heads
        if room < 0:
            return facts[:n]
    return facts[:MAX_FACTS]


def _from_wire_facts(wire: Sequence[pb.SignedFact]) -> tuple[SignedFact, ...]:
    check(len(wire) <= MAX_FACTS, f"{len(wire)} facts in one message")
    return tuple(_readable(wire))


def _readable(wire: Iterable[pb.SignedFact]) -> Iterable[SignedFact]:
    for signed in wire:
        try:
            yield from_wire_signed_fact(signed)
        except RemoteProtocolError:
            continue  # the fault of its issuer, or of a newer version, and not of the node that passes it on
