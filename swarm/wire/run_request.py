"""RunRequest frames: an Open, or a Step whose tensor is copied once on the way out and not at all on the way in."""

from __future__ import annotations

from swarm.messages import Leave, Open, Rows, Step
from swarm.wire.checks import check, parse
from swarm.wire.codec import from_wire_open, from_wire_step, to_wire_hop_times, to_wire_open, to_wire_step
from swarm.wire.rows_frame import join_rows, split_rows, tag_of
from swarm.wire.v1 import stage_pb2 as pb

_TAG_STEP = tag_of(pb.RunRequest.STEP_FIELD_NUMBER)
_TAG_TOKEN_IDS = tag_of(pb.Step.TOKEN_IDS_FIELD_NUMBER)
_TAG_ROWS = tag_of(pb.Step.ROWS_FIELD_NUMBER)


def encode_run_request(request: Open | Step | Leave) -> bytes:
    if isinstance(request, Open):
        return pb.RunRequest(open=to_wire_open(request)).SerializeToString()
    if isinstance(request, Leave):
        return pb.RunRequest(leave=pb.Leave()).SerializeToString()
    if isinstance(request.payload, Rows):
        return _encode_rows_step(request, request.payload)
    return pb.RunRequest(step=to_wire_step(request)).SerializeToString()


def decode_run_request(frame: bytes) -> Open | Step | Leave:
    """A Step's Rows.data is a view into `frame`. Raises: RemoteProtocolError."""
    parts = split_rows(frame, _TAG_STEP, _TAG_ROWS, forbidden=_TAG_TOKEN_IDS)
    if parts is not None:
        around, rows = parts
        return from_wire_step(parse(pb.Step, around), rows)
    wire = parse(pb.RunRequest, frame)
    if wire.WhichOneof("request") == "open":
        return from_wire_open(wire.open)
    if wire.WhichOneof("request") == "leave":
        return Leave()
    check(wire.WhichOneof("request") == "step", "a RunRequest that asks for nothing")
    return from_wire_step(wire.step)


def _encode_rows_step(step: Step, rows: Rows) -> bytes:
    before = pb.Step(epoch=step.epoch, position=step.position).SerializeToString()
    times = to_wire_hop_times(step.hop_times)
    after = pb.Step(
        n_logit_rows=step.n_logit_rows, hop_times=times, allowed=step.allowed, page_hashes=step.page_hashes
    ).SerializeToString()
    return join_rows(_TAG_STEP, before, _TAG_ROWS, rows, after)
