"""Facts about nodes, native <-> proto.

A fact is signed as bytes, so its payload is kept as it came and never serialised again.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from swarm.facts import LayerHeat, NodeFact, NodeState, Reachability, SignedFact
from swarm.terms import ExpertRange, Span
from swarm.wire.checks import (
    MAX_COUNTER,
    MAX_EXPERTS,
    MAX_LAYERS,
    check,
    check_address,
    check_infohash,
    check_node_id,
    check_number,
    check_profile,
    check_seconds,
    check_span,
    check_throughput,
    parse,
    printable,
)
from swarm.wire.codec import to_wire_span
from swarm.wire.v1 import node_pb2 as pb
from swarm.wire.v1 import stage_pb2 as stage_pb

FACT_DOMAIN = b"swarm-fact-v1\0"
"""What precedes a fact's payload in the bytes that its issuer signs."""

MAX_FACT_BYTES = 4096
"""Room for 64 layers of 8 experts, other ones of each hosted, and the heat of all."""
MAX_SPANS = 64
MAX_RTTS = 16
"""Of the nodes nearest to one: what tells of a thousand nodes weighs a thousand times as much."""
MAX_RELAY_PLACES = 1 << 16
MAX_VERSION_CHARACTERS = 64

_STATE_TO_WIRE = {
    NodeState.JOINING: pb.NODE_STATE_JOINING,
    NodeState.SERVING: pb.NODE_STATE_SERVING,
    NodeState.DRAINING: pb.NODE_STATE_DRAINING,
    NodeState.LEFT: pb.NODE_STATE_LEFT,
}
_STATE_FROM_WIRE = {wire: state for state, wire in _STATE_TO_WIRE.items()}
_REACHABILITY_TO_WIRE = {
    Reachability.UNKNOWN: pb.REACHABILITY_UNKNOWN,
    Reachability.REACHABLE: pb.REACHABILITY_REACHABLE,
    Reachability.UNREACHABLE: pb.REACHABILITY_UNREACHABLE,
}
_REACHABILITY_FROM_WIRE = {wire: native for native, wire in _REACHABILITY_TO_WIRE.items()}


def encode_fact(fact: NodeFact) -> bytes:
    """The payload to sign; ttl_s, layer_time_s and RTTs are rounded to 32-bit floats, all but MAX_RTTS left out."""
    return pb.NodeFact(
        node_id=fact.node_id,
        release=bytes.fromhex(fact.release),
        address=str(fact.address),
        seq=fact.seq,
        issued_at_s=fact.issued_at_s,
        ttl_s=fact.ttl_s,
        state=_STATE_TO_WIRE[fact.state],
        spans=map(to_wire_span, fact.spans),
        profile=str(fact.profile),
        n_layers=fact.n_layers,
        free_sessions=fact.free_sessions,
        layer_time_s=fact.layer_time_s,
        torrent_port=fact.torrent_port,
        needed_bytes=fact.needed_bytes,
        fetched_bytes=fact.fetched_bytes,
        found_bytes=fact.found_bytes,
        uploaded_bytes=fact.uploaded_bytes,
        downloaded_bytes=fact.downloaded_bytes,
        version=fact.version[:MAX_VERSION_CHARACTERS],
        loaded_spans=map(to_wire_span, fact.loaded_spans),
        trunks=map(to_wire_span, fact.trunks),
        loaded_trunks=map(to_wire_span, fact.loaded_trunks),
        experts=map(_to_wire_experts, fact.experts),
        loaded_experts=map(_to_wire_experts, fact.loaded_experts),
        n_experts=fact.n_experts,
        expert_wait_s=fact.expert_wait_s,
        heat=[pb.LayerHeat(layer_idx=heat.layer_idx, shares=heat.shares) for heat in fact.heat],
        reachability=_REACHABILITY_TO_WIRE[fact.reachability],
        relay=fact.relay or "",
        relay_places=fact.relay_places,
        rtt_tags=[tag for tag, _ in fact.rtts[:MAX_RTTS]],
        rtts_s=[rtt_s for _, rtt_s in fact.rtts[:MAX_RTTS]],
        placed_at_s=fact.placed_at_s,
        leaving_spans=map(to_wire_span, fact.leaving_spans),
        throughput=fact.throughput,
        queue_s=fact.queue_s,
    ).SerializeToString(deterministic=True)


def decode_fact(payload: bytes) -> NodeFact:
    """Does not check who signed the payload, nor whether the fact has expired. Raises: RemoteProtocolError."""
    wire = parse(pb.NodeFact, payload, MAX_FACT_BYTES)
    check(wire.state in _STATE_FROM_WIRE, f"unknown node state {wire.state}")
    check(len(wire.rtt_tags) == len(wire.rtts_s) <= MAX_RTTS, f"{len(wire.rtt_tags)} tags of {len(wire.rtts_s)} RTTs")
    address = check_address(wire.address)
    check(address.target in ("", wire.node_id), "an address that leads to another node than the fact's own")
    check(bool(address.target) == bool(wire.relay), "a relay without an address through it, or the other way about")
    n_layers = check_number(wire.n_layers, 1, MAX_LAYERS, "n_layers")
    n_experts = check_number(wire.n_experts, 0, MAX_EXPERTS, "n_experts")
    spans, loaded_spans = _hosted_and_loaded(wire.spans, wire.loaded_spans, n_layers)
    trunks, loaded_trunks = _hosted_and_loaded(wire.trunks, wire.loaded_trunks, n_layers)
    check(n_experts > 0 or not trunks, "a trunk of a model without experts")
    check(len(wire.heat) <= n_layers, f"the heat of {len(wire.heat)} layers")
    return NodeFact(
        node_id=check_node_id(wire.node_id),
        release=check_infohash(wire.release),
        address=address,
        seq=check_number(wire.seq, 0, MAX_COUNTER, "seq"),
        issued_at_s=check_seconds(wire.issued_at_s, "issued_at_s"),
        ttl_s=check_seconds(wire.ttl_s, "ttl_s"),
        state=_STATE_FROM_WIRE[wire.state],
        spans=spans,
        profile=check_profile(wire.profile),
        n_layers=n_layers,
        free_sessions=wire.free_sessions,
        layer_time_s=check_seconds(wire.layer_time_s, "layer_time_s"),
        torrent_port=check_number(wire.torrent_port, 0, 65535, "torrent_port"),
        needed_bytes=check_number(wire.needed_bytes, 0, MAX_COUNTER, "needed_bytes"),
        fetched_bytes=check_number(wire.fetched_bytes, 0, MAX_COUNTER, "fetched_bytes"),
        found_bytes=check_number(wire.found_bytes, 0, MAX_COUNTER, "found_bytes"),
        uploaded_bytes=check_number(wire.uploaded_bytes, 0, MAX_COUNTER, "uploaded_bytes"),
        downloaded_bytes=check_number(wire.downloaded_bytes, 0, MAX_COUNTER, "downloaded_bytes"),
        version=printable(wire.version, MAX_VERSION_CHARACTERS),
        loaded_spans=loaded_spans,
        trunks=trunks,
        loaded_trunks=loaded_trunks,
        experts=_from_wire_experts(wire.experts, n_layers, n_experts),
        loaded_experts=_from_wire_experts(wire.loaded_experts, n_layers, n_experts),
        n_experts=n_experts,
        expert_wait_s=check_seconds(wire.expert_wait_s, "expert_wait_s"),
        heat=tuple(_from_wire_heat(heat, n_layers, n_experts) for heat in wire.heat),
        reachability=_REACHABILITY_FROM_WIRE.get(wire.reachability, Reachability.UNKNOWN),
        relay=check_node_id(wire.relay) if wire.relay else None,
        relay_places=check_number(wire.relay_places, 0, MAX_RELAY_PLACES, "relay_places"),
        rtts=tuple(
            (tag, check_seconds(rtt_s, "an RTT")) for tag, rtt_s in zip(wire.rtt_tags, wire.rtts_s, strict=True)
        ),
        placed_at_s=check_seconds(wire.placed_at_s, "placed_at_s"),
        leaving_spans=_leaving(wire, n_layers),
        throughput=check_throughput(wire.throughput),
        queue_s=check_seconds(wire.queue_s, "queue_s"),
    )


def _hosted_and_loaded(
    hosted: Sequence[stage_pb.Span], loaded: Sequence[stage_pb.Span], n_layers: int
) -> tuple[tuple[Span, ...], tuple[Span, ...]]:
    """Both sorted and disjoint, the loaded ones within the hosted ones."""
    n_spans = max(len(hosted), len(loaded))
    check(n_spans <= MAX_SPANS, f"a fact of {n_spans} spans")
    spans = tuple(check_span(span, n_layers) for span in hosted)
    loaded_spans = tuple(check_span(span, n_layers) for span in loaded)
    for a, b in (*pairwise(spans), *pairwise(loaded_spans)):
        check(a.end <= b.start, f"spans {a} and {b}, which are not sorted and disjoint")
    for one in loaded_spans:
        check(any(span.covers(one) for span in spans), f"loaded layers {one}, which are not hosted")
    return spans, loaded_spans


def _to_wire_experts(experts: ExpertRange) -> pb.ExpertRange:
    return pb.ExpertRange(layers=to_wire_span(experts.layers), expert_idxs=experts.expert_idxs)


def _from_wire_experts(wire: Sequence[pb.ExpertRange], n_layers: int, n_experts: int) -> tuple[ExpertRange, ...]:
    check(len(wire) <= MAX_SPANS, f"a fact of {len(wire)} ranges of experts")
    ranges = []
    for one in wire:
        expert_idxs = tuple(one.expert_idxs)
        check(0 < len(expert_idxs) <= n_experts, f"{len(expert_idxs)} experts of {n_experts}")
        check(all(a < b for a, b in pairwise(expert_idxs)), f"experts {expert_idxs}, which do not ascend")
        check(expert_idxs[-1] < n_experts, f"expert {expert_idxs[-1]} of {n_experts}")
        ranges.append(ExpertRange(check_span(one.layers, n_layers), expert_idxs))
    for a, b in pairwise(ranges):
        check(a.layers.end <= b.layers.start, f"experts of layers {a.layers} and {b.layers}, not sorted and disjoint")
    return tuple(ranges)


def _from_wire_heat(wire: pb.LayerHeat, n_layers: int, n_experts: int) -> LayerHeat:
    check(len(wire.shares) == n_experts, f"the heat of {len(wire.shares)} experts of {n_experts}")
    return LayerHeat(check_number(wire.layer_idx, 0, n_layers - 1, "layer_idx"), wire.shares)


def _leaving(wire: pb.NodeFact, n_layers: int) -> tuple[Span, ...]:
    check(len(wire.leaving_spans) <= MAX_SPANS, f"a fact of {len(wire.leaving_spans)} spans to leave")
    return tuple(check_span(span, n_layers) for span in wire.leaving_spans)


def encode_signed_fact(signed: SignedFact) -> bytes:
    return to_wire_signed_fact(signed).SerializeToString()


def decode_signed_fact(data: bytes) -> SignedFact:
    return from_wire_signed_fact(parse(pb.SignedFact, data, 2 * MAX_FACT_BYTES))


def to_wire_signed_fact(signed: SignedFact) -> pb.SignedFact:
    return pb.SignedFact(payload=signed.payload, signature=signed.signature)


def from_wire_signed_fact(wire: pb.SignedFact) -> SignedFact:
    """Does not check the signature: only its length."""
    check(len(wire.signature) == 64, f"a signature of {len(wire.signature)} bytes instead of 64")
    return SignedFact(decode_fact(wire.payload), wire.payload, wire.signature)
