"""The messages of a relay, native <-> proto: who is to be joined to whom, then bytes that only the ends can read."""

from __future__ import annotations

from swarm.terms import NodeId
from swarm.wire.checks import check, check_node_id, parse
from swarm.wire.v1 import relay_pb2 as pb

TUNNEL_BYTES = 16
MAX_DATA_BYTES = 64 << 10
"""In one frame: large enough that frames cost little, small enough that tunnels take turns."""
_MAX_FRAME_BYTES = MAX_DATA_BYTES + 64


def encode_reserve_reply(tunnel: bytes) -> bytes:
    """tunnel: which call to accept; empty: the place is taken."""
    return pb.ReserveReply(tunnel=tunnel).SerializeToString()


def decode_reserve_reply(data: bytes) -> bytes:
    tunnel = parse(pb.ReserveReply, data, _MAX_FRAME_BYTES).tunnel
    check(len(tunnel) in (0, TUNNEL_BYTES), f"a tunnel named by {len(tunnel)} bytes")
    return tunnel


def encode_connect_opening(target: NodeId) -> bytes:
    return pb.RelayFrame(target=target).SerializeToString()


def decode_connect_opening(data: bytes) -> NodeId:
    return check_node_id(parse(pb.RelayFrame, data, _MAX_FRAME_BYTES).target)


def encode_accept_opening(tunnel: bytes) -> bytes:
    return pb.RelayFrame(tunnel=tunnel).SerializeToString()


def decode_accept_opening(data: bytes) -> bytes:
    tunnel = parse(pb.RelayFrame, data, _MAX_FRAME_BYTES).tunnel
    check(len(tunnel) == TUNNEL_BYTES, f"a tunnel named by {len(tunnel)} bytes")
    return tunnel


def encode_relay_data(data: bytes) -> bytes:
    return pb.RelayFrame(data=data).SerializeToString()


def decode_relay_data(frame: bytes) -> bytes:
    wire = parse(pb.RelayFrame, frame, _MAX_FRAME_BYTES)
    check(wire.WhichOneof("kind") == "data", "a relay's frame without data after its first")
    return wire.data
