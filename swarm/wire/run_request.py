"""RunRequest frames: an Open, or a Step whose tensor is copied once on the way out and not at all on the way in.

The generated code copies a bytes field when it is set, again when it is serialised, and again when it is parsed. Here
it writes and reads the fields around the tensor only. The bytes are those that the generated code would have made.
"""

from __future__ import annotations

from swarm.messages import Leave, Open, Rows, Step
from swarm.wire.checks import check, parse
from swarm.wire.codec import (
    from_wire_open,
    from_wire_rows,
    from_wire_step,
    to_wire_dtype,
    to_wire_hop_times,
    to_wire_open,
    to_wire_step,
)
from swarm.wire.fields import encode_varint, read_fields
from swarm.wire.v1 import stage_pb2 as pb

_LENGTH_DELIMITED = 2
_TAG_STEP = pb.RunRequest.STEP_FIELD_NUMBER << 3 | _LENGTH_DELIMITED
_TAG_TOKEN_IDS = pb.Step.TOKEN_IDS_FIELD_NUMBER << 3 | _LENGTH_DELIMITED
_TAG_ROWS = pb.Step.ROWS_FIELD_NUMBER << 3 | _LENGTH_DELIMITED
_TAG_DATA = pb.Rows.DATA_FIELD_NUMBER << 3 | _LENGTH_DELIMITED


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
    parts = _split_rows_step(frame)
    if parts is not None:
        around, rows_head, data = parts
        rows = parse(pb.Rows, rows_head)
        return from_wire_step(parse(pb.Step, around), from_wire_rows(rows.n_rows, rows.dtype, data))
    wire = parse(pb.RunRequest, frame)
    if wire.WhichOneof("request") == "open":
        return from_wire_open(wire.open)
    if wire.WhichOneof("request") == "leave":
        return Leave()
    check(wire.WhichOneof("request") == "step", "a RunRequest that asks for nothing")
    return from_wire_step(wire.step)


def _encode_rows_step(step: Step, rows: Rows) -> bytes:
    """One join of small pieces and the tensor, in the order of the field numbers."""
    data = memoryview(rows.data).cast("B") if not isinstance(rows.data, bytes) else rows.data
    before = pb.Step(epoch=step.epoch, position=step.position).SerializeToString()
    times = to_wire_hop_times(step.hop_times)
    after = pb.Step(
        n_logit_rows=step.n_logit_rows, hop_times=times, allowed=step.allowed, page_hashes=step.page_hashes
    ).SerializeToString()
    rows_head = pb.Rows(n_rows=rows.n_rows, dtype=to_wire_dtype(rows.dtype)).SerializeToString()
    rows_head += encode_varint(_TAG_DATA) + encode_varint(len(data))
    rows_tag = encode_varint(_TAG_ROWS) + encode_varint(len(rows_head) + len(data))
    step_length = len(before) + len(rows_tag) + len(rows_head) + len(data) + len(after)
    return b"".join((encode_varint(_TAG_STEP), encode_varint(step_length), before, rows_tag, rows_head, data, after))


def _split_rows_step(frame: bytes) -> tuple[bytes, bytes, memoryview] | None:
    """Find the tensor: (the Step without its rows, the Rows without their data, the data as a view).

    None when the frame is anything but one Step with one Rows with one data: repeated fields, which a parser would
    merge, are left to the generated code.
    """
    request = read_fields(frame, 0, len(frame))
    if request is None or len(request) != 1 or request[0].tag != _TAG_STEP:
        return None
    step = _split_at(frame, request[0].value_start, request[0].value_end, _TAG_ROWS, forbidden=_TAG_TOKEN_IDS)
    if step is None:
        return None
    around, start, end = step
    rows = _split_at(frame, start, end, _TAG_DATA)
    if rows is None:
        return None
    rows_head, start, end = rows
    return around, rows_head, memoryview(frame)[start:end]


def _split_at(frame: bytes, start: int, end: int, tag: int, forbidden: int = 0) -> tuple[bytes, int, int] | None:
    """The one field `tag` of frame[start:end]: (the bytes of the others, where its value starts, where it ends)."""
    fields = read_fields(frame, start, end)
    if fields is None or any(field.tag == forbidden for field in fields):
        return None
    found = [field for field in fields if field.tag == tag]
    if len(found) != 1:
        return None
    return frame[start : found[0].start] + frame[found[0].value_end : end], found[0].value_start, found[0].value_end
