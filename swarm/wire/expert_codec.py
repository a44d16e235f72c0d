"""The frames of an Apply stream; tensors are copied once on the way out and not at all on the way in."""

from __future__ import annotations

from itertools import pairwise

from swarm.messages import ExpertAnswer, ExpertCall, ExpertOpen, ExpertRefusal, Rows
from swarm.wire.checks import (
    MAX_COUNTER,
    MAX_EXPERTS,
    MAX_LAYERS,
    MAX_ROWS,
    check,
    check_infohash,
    check_number,
    check_profile,
    check_seconds,
    parse,
    printable,
)
from swarm.wire.codec import MAX_MESSAGE_CHARACTERS, check_code, from_wire_rows
from swarm.wire.rows_frame import join_rows, split_rows, tag_of
from swarm.wire.v1 import experts_pb2 as pb

_TAG_CALL = tag_of(pb.ExpertRequest.CALL_FIELD_NUMBER)
_TAG_CALL_ROWS = tag_of(pb.ExpertCall.ROWS_FIELD_NUMBER)
_TAG_ANSWER = tag_of(pb.ExpertReply.ANSWER_FIELD_NUMBER)
_TAG_ANSWER_ROWS = tag_of(pb.ExpertAnswer.ROWS_FIELD_NUMBER)


def encode_expert_request(request: ExpertOpen | ExpertCall) -> bytes:
    if isinstance(request, ExpertOpen):
        opening = pb.ExpertOpen(release=bytes.fromhex(request.release), profile=str(request.profile))
        return pb.ExpertRequest(open=opening).SerializeToString()
    wanted = [pb.WantedRows(expert_idx=expert_idx, row_idxs=row_idxs) for expert_idx, row_idxs in request.wanted]
    before = pb.ExpertCall(request_id=request.request_id, layer_idx=request.layer_idx, wanted=wanted)
    return join_rows(_TAG_CALL, before.SerializeToString(), _TAG_CALL_ROWS, request.rows)


def decode_expert_request(frame: bytes) -> ExpertOpen | ExpertCall:
    """A call's Rows.data is a view into `frame`. Raises: RemoteProtocolError."""
    parts = split_rows(frame, _TAG_CALL, _TAG_CALL_ROWS)
    if parts is not None:
        around, rows = parts
        return _from_wire_call(parse(pb.ExpertCall, around), rows)
    wire = parse(pb.ExpertRequest, frame)
    if wire.WhichOneof("request") == "open":
        return ExpertOpen(check_infohash(wire.open.release), check_profile(wire.open.profile))
    check(wire.WhichOneof("request") == "call", "an ExpertRequest that asks for nothing")
    rows = from_wire_rows(wire.call.rows.n_rows, wire.call.rows.dtype, wire.call.rows.data)
    return _from_wire_call(wire.call, rows)


def encode_expert_reply(reply: ExpertAnswer | ExpertRefusal) -> bytes:
    if isinstance(reply, ExpertAnswer):
        before = pb.ExpertAnswer(request_id=reply.request_id, queue_s=reply.queue_s, compute_s=reply.compute_s)
        return join_rows(_TAG_ANSWER, before.SerializeToString(), _TAG_ANSWER_ROWS, reply.rows)
    message = reply.message[:MAX_MESSAGE_CHARACTERS]
    refusal = pb.ExpertRefusal(request_id=reply.request_id, code=reply.code, message=message)
    return pb.ExpertReply(refusal=refusal).SerializeToString()


def decode_expert_reply(frame: bytes) -> ExpertAnswer | ExpertRefusal:
    """An answer's Rows.data is a view into `frame`. Raises: RemoteProtocolError."""
    parts = split_rows(frame, _TAG_ANSWER, _TAG_ANSWER_ROWS)
    if parts is not None:
        around, rows = parts
        return _from_wire_answer(parse(pb.ExpertAnswer, around), rows)
    wire = parse(pb.ExpertReply, frame)
    if wire.WhichOneof("reply") == "answer":
        rows = from_wire_rows(wire.answer.rows.n_rows, wire.answer.rows.dtype, wire.answer.rows.data)
        return _from_wire_answer(wire.answer, rows)
    check(wire.WhichOneof("reply") == "refusal", "an ExpertReply that says nothing")
    return ExpertRefusal(
        check_number(wire.refusal.request_id, 0, MAX_COUNTER, "request_id"),
        check_code(wire.refusal.code),
        printable(wire.refusal.message, MAX_MESSAGE_CHARACTERS),
    )


def _from_wire_call(wire: pb.ExpertCall, rows: Rows) -> ExpertCall:
    check(1 <= len(wire.wanted) <= MAX_EXPERTS, f"a call of {len(wire.wanted)} experts")
    wanted = tuple((one.expert_idx, tuple(one.row_idxs)) for one in wire.wanted)
    for (a, _), (b, _) in pairwise(wanted):
        check(a < b, f"expert {b} after expert {a}")
    for expert_idx, row_idxs in wanted:
        check_number(expert_idx, 0, MAX_EXPERTS - 1, "expert_idx")
        check(1 <= len(row_idxs) <= rows.n_rows, f"{len(row_idxs)} of {rows.n_rows} rows for expert {expert_idx}")
        check(row_idxs[-1] < rows.n_rows, f"row {row_idxs[-1]} of {rows.n_rows}")
        check(all(a < b for a, b in pairwise(row_idxs)), f"rows for expert {expert_idx} that do not ascend")
    check(sum(len(row_idxs) for _, row_idxs in wanted) <= MAX_ROWS, "an answer of too many rows")
    return ExpertCall(
        check_number(wire.request_id, 0, MAX_COUNTER, "request_id"),
        check_number(wire.layer_idx, 0, MAX_LAYERS, "layer_idx"),
        wanted,
        rows,
    )


def _from_wire_answer(wire: pb.ExpertAnswer, rows: Rows) -> ExpertAnswer:
    return ExpertAnswer(
        check_number(wire.request_id, 0, MAX_COUNTER, "request_id"),
        rows,
        check_seconds(wire.queue_s, "queue_s"),
        check_seconds(wire.compute_s, "compute_s"),
    )
