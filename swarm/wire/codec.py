"""The messages of a session's streams, native <-> proto, but for the frames that carry tensors (run_request.py).

`to_wire_*` trusts our own values. `from_wire_*` trusts nothing: RemoteProtocolError for whatever is out of bounds.
Times and logits travel as 32-bit floats.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from itertools import islice, pairwise

from swarm.facts import Hop
from swarm.messages import Failure, HopTime, Open, Opened, Result, Rows, Step, TopLogits
from swarm.pages import MAX_PAGES_OFFERED, PAGE, n_pages_completed
from swarm.terms import SessionId, Span
from swarm.wire.checks import (
    MAX_ALLOWED_BYTES,
    MAX_COUNTER,
    MAX_HOPS,
    MAX_POSITIONS,
    MAX_ROWS,
    MAX_STRUCTURE_BYTES,
    MAX_TOP,
    check,
    check_address,
    check_finite,
    check_infohash,
    check_node_id,
    check_number,
    check_page_hashes,
    check_profile,
    check_seconds,
    check_session_id,
    check_span,
    parse,
    printable,
)
from swarm.wire.fields import read_fields
from swarm.wire.v1 import stage_pb2 as pb

MAX_MESSAGE_CHARACTERS = 2000
MAX_CODE_CHARACTERS = 64

_DTYPE_TO_WIRE = {"fp32": pb.DTYPE_FP32, "bf16": pb.DTYPE_BF16}
_DTYPE_FROM_WIRE = {pb.DTYPE_FP32: ("fp32", 4), pb.DTYPE_BF16: ("bf16", 2)}  # name, bytes per element


def to_wire_open(opening: Open) -> pb.Open:
    return pb.Open(
        session_id=bytes.fromhex(opening.session_id),
        epoch=opening.epoch,
        release=bytes.fromhex(opening.release),
        client_id=opening.client_id,
        hops=[pb.Hop(node_id=h.node_id, address=str(h.address), span=to_wire_span(h.span)) for h in opening.hops],
        hop_idx=opening.hop_idx,
        profile=str(opening.profile),
        max_positions=opening.max_positions,
        n_top=opening.n_top,
        page_hashes=opening.page_hashes,
        fed_positions=opening.fed_positions,
        known_positions=opening.known_positions,
    )


def from_wire_open(wire: pb.Open) -> Open:
    check(1 <= len(wire.hops) <= MAX_HOPS, f"a route of {len(wire.hops)} hops")
    hops = tuple(Hop(check_node_id(h.node_id), check_address(h.address), check_span(h.span)) for h in wire.hops)
    check(hops[0].span.start == 0, f"a route that starts at layer {hops[0].span.start}")
    for a, b in pairwise(hops):
        check(a.span.end == b.span.start, f"a route in which {a.span} is followed by {b.span}")
    max_positions = check_number(wire.max_positions, 1, MAX_POSITIONS, "max_positions")
    most_pages = min(MAX_PAGES_OFFERED, (max_positions - 1) // PAGE)  # a position is left to compute
    check(len(wire.page_hashes) <= most_pages, f"{len(wire.page_hashes)} pages of at most {max_positions} positions")
    return Open(
        session_id=check_session_id(wire.session_id),
        epoch=check_number(wire.epoch, 0, MAX_COUNTER, "epoch"),
        release=check_infohash(wire.release),
        client_id=check_node_id(wire.client_id),
        hops=hops,
        hop_idx=check_number(wire.hop_idx, 0, len(hops) - 1, "hop_idx"),
        profile=check_profile(wire.profile),
        max_positions=max_positions,
        n_top=check_number(wire.n_top, 1, MAX_TOP, "n_top"),
        page_hashes=check_page_hashes(wire.page_hashes),
        fed_positions=check_number(wire.fed_positions, 0, max_positions - 1, "fed_positions"),
        known_positions=check_number(wire.known_positions, 0, max_positions, "known_positions"),
    )


def to_wire_span(span: Span) -> pb.Span:
    return pb.Span(start=span.start, end=span.end)


def to_wire_hop_times(hop_times: Iterable[HopTime]) -> list[pb.HopTime]:
    return [pb.HopTime(node_id=t.node_id, queue_s=t.queue_s, compute_s=t.compute_s) for t in hop_times]


def from_wire_hop_times(wire: pb.Step | pb.Result) -> tuple[HopTime, ...]:
    check(len(wire.hop_times) <= MAX_HOPS, f"the times of {len(wire.hop_times)} hops")
    return tuple(
        HopTime(check_node_id(t.node_id), check_seconds(t.queue_s, "queue_s"), check_seconds(t.compute_s, "compute_s"))
        for t in wire.hop_times
    )


def to_wire_step(step: Step) -> pb.Step:
    """Copies a tensor twice over: streams use run_request.encode_run_request instead."""
    wire = pb.Step(
        epoch=step.epoch,
        position=step.position,
        n_logit_rows=step.n_logit_rows,
        hop_times=to_wire_hop_times(step.hop_times),
        allowed=step.allowed,
        page_hashes=step.page_hashes,
    )
    if isinstance(step.payload, Rows):
        wire.rows.MergeFrom(pb.Rows(n_rows=step.payload.n_rows, dtype=to_wire_dtype(step.payload.dtype)))
        wire.rows.data = bytes(step.payload.data)
    else:
        wire.token_ids.ids.extend(step.payload)
    return wire


def from_wire_step(wire: pb.Step, rows: Rows | None = None) -> Step:
    """rows: the payload, where it was taken from the frame without copying and `wire` is the rest of the message."""
    payload: tuple[int, ...] | Rows
    if rows is not None:
        payload, n_rows = rows, rows.n_rows
    elif wire.WhichOneof("payload") == "rows":
        payload = from_wire_rows(wire.rows.n_rows, wire.rows.dtype, wire.rows.data)
        n_rows = payload.n_rows
    else:
        payload = tuple(wire.token_ids.ids)
        n_rows = check_number(len(payload), 1, MAX_ROWS, "number of token ids")
    check(len(wire.allowed) <= MAX_ALLOWED_BYTES, f"a mask of {len(wire.allowed)} bytes")
    check(not wire.allowed or wire.n_logit_rows == 1, f"a mask for {wire.n_logit_rows} rows of logits instead of one")
    position = check_number(wire.position, 0, MAX_POSITIONS - n_rows, "position")
    n_pages = n_pages_completed(position, n_rows)
    check(len(wire.page_hashes) in (0, n_pages), f"{len(wire.page_hashes)} hashes where {n_pages} pages are completed")
    return Step(
        epoch=check_number(wire.epoch, 0, MAX_COUNTER, "epoch"),
        position=position,
        payload=payload,
        n_logit_rows=check_number(wire.n_logit_rows, 0, n_rows, "n_logit_rows"),
        hop_times=from_wire_hop_times(wire),
        allowed=wire.allowed,
        page_hashes=check_page_hashes(wire.page_hashes),
    )


def to_wire_dtype(dtype: str) -> pb.Dtype:
    return _DTYPE_TO_WIRE[dtype]


def from_wire_rows(n_rows: int, dtype: int, data: bytes | memoryview) -> Rows:
    check_number(n_rows, 1, MAX_ROWS, "n_rows")
    check(dtype in _DTYPE_FROM_WIRE, f"unknown dtype {dtype}")
    name, itemsize = _DTYPE_FROM_WIRE[pb.Dtype.ValueType(dtype)]
    check(len(data) > 0 and len(data) % (n_rows * itemsize) == 0, f"{len(data)} bytes for {n_rows} rows of {name}")
    return Rows(n_rows, name, data)


def encode_run_reply(reply: Opened | Failure) -> bytes:
    if isinstance(reply, Opened):
        opened = pb.Opened(epoch=reply.epoch, cached=reply.cached, answered=reply.answered)
        return pb.RunReply(opened=opened).SerializeToString()
    return pb.RunReply(failure=to_wire_failure(reply)).SerializeToString()


def decode_run_reply(data: bytes) -> Opened | Failure:
    wire = parse(pb.RunReply, data)
    if wire.WhichOneof("reply") == "opened":
        return Opened(
            check_number(wire.opened.epoch, 0, MAX_COUNTER, "epoch"),
            check_number(wire.opened.cached, 0, MAX_POSITIONS - 1, "cached"),
            check_number(wire.opened.answered, 0, MAX_POSITIONS - 1, "answered"),
        )
    check(wire.WhichOneof("reply") == "failure", "a RunReply that says nothing")
    return from_wire_failure(wire.failure)


def to_wire_failure(failure: Failure) -> pb.Failure:
    return pb.Failure(
        hop_idx=failure.hop_idx,
        node_id=failure.node_id,
        code=failure.code,
        message=failure.message[:MAX_MESSAGE_CHARACTERS],
        retry_after_s=failure.retry_after_s,
    )


def from_wire_failure(wire: pb.Failure) -> Failure:
    return Failure(
        hop_idx=check_number(wire.hop_idx, 0, MAX_HOPS - 1, "hop_idx"),
        node_id=check_node_id(wire.node_id),
        code=check_code(wire.code),
        message=printable(wire.message, MAX_MESSAGE_CHARACTERS),
        retry_after_s=check_seconds(wire.retry_after_s, "retry_after_s"),
    )


def check_code(code: str) -> str:
    """The name of an error class, as far as one can tell."""
    check(code.isascii() and code.isidentifier() and len(code) <= MAX_CODE_CHARACTERS, f"error code {code[:80]!r}")
    return code


def encode_results_request(session_id: SessionId, epoch: int) -> bytes:
    return pb.ResultsRequest(session_id=bytes.fromhex(session_id), epoch=epoch).SerializeToString()


def decode_results_request(data: bytes) -> tuple[SessionId, int]:
    wire = parse(pb.ResultsRequest, data)
    return check_session_id(wire.session_id), check_number(wire.epoch, 0, MAX_COUNTER, "epoch")


def encode_result(result: Result) -> bytes:
    return pb.Result(
        epoch=result.epoch,
        position=result.position,
        rows=[pb.TopLogits(ids=r.ids, logits=r.logits, log_sum_exp=r.log_sum_exp) for r in result.rows],
        hop_times=to_wire_hop_times(result.hop_times),
    ).SerializeToString()


def decode_result(data: bytes) -> Result:
    """A large result has few rows of many logits; one of many small rows is refused unparsed."""
    few_fields = len(data) > MAX_STRUCTURE_BYTES and read_fields(data, 0, len(data)) is not None
    wire = parse(pb.Result, data, len(data) if few_fields else MAX_STRUCTURE_BYTES)
    return Result(
        epoch=check_number(wire.epoch, 0, MAX_COUNTER, "epoch"),
        position=check_number(wire.position, 1, MAX_POSITIONS, "position"),
        rows=tuple(map(from_wire_top_logits, wire.rows)),
        hop_times=from_wire_hop_times(wire),
    )


def from_wire_top_logits(wire: pb.TopLogits) -> TopLogits:
    ids, logits = tuple(wire.ids), tuple(wire.logits)
    check(1 <= len(ids) == len(logits) <= MAX_TOP, f"{len(ids)} ids with {len(logits)} logits")
    # With NaN or infinity inside, one of these two fails: what lies between finite ends in descending order is finite.
    check_finite((logits[0], logits[-1], wire.log_sum_exp), "a logit")
    check(all(map(operator.ge, logits, islice(logits, 1, None))), "top logits that are not in descending order")
    check(len(set(ids)) == len(ids), "top logits that name a token twice")
    return TopLogits(ids, logits, wire.log_sum_exp)
