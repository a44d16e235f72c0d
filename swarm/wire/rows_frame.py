"""Frames around one tensor: Message { Inner { …, Rows { n_rows, dtype, data }, … } }, without copying the data.

The generated code copies a bytes field when it is set, again when it is serialised, and again when it is parsed. Here
it writes and reads the fields around the tensor only. The bytes are those that the generated code would have made.
"""

from __future__ import annotations

from swarm.messages import Rows
from swarm.wire.checks import parse
from swarm.wire.codec import from_wire_rows, to_wire_dtype
from swarm.wire.fields import encode_varint, read_fields
from swarm.wire.v1 import stage_pb2 as pb

_LENGTH_DELIMITED = 2
_TAG_DATA = pb.Rows.DATA_FIELD_NUMBER << 3 | _LENGTH_DELIMITED


def tag_of(field_number: int) -> int:
    """Of a field that is a message or bytes."""
    return field_number << 3 | _LENGTH_DELIMITED


def join_rows(inner_tag: int, before: bytes, rows_tag: int, rows: Rows, after: bytes = b"") -> bytes:
    """One frame: the inner message's fields before and after its rows, serialised already, and the rows in between.

    One join of small pieces and the tensor; fields come in the order of their numbers if the caller has them so.
    """
    data = memoryview(rows.data).cast("B") if not isinstance(rows.data, bytes) else rows.data
    rows_head = pb.Rows(n_rows=rows.n_rows, dtype=to_wire_dtype(rows.dtype)).SerializeToString()
    rows_head += encode_varint(_TAG_DATA) + encode_varint(len(data))
    head = encode_varint(rows_tag) + encode_varint(len(rows_head) + len(data))
    length = len(before) + len(head) + len(rows_head) + len(data) + len(after)
    return b"".join((encode_varint(inner_tag), encode_varint(length), before, head, rows_head, data, after))


def split_rows(frame: bytes, inner_tag: int, rows_tag: int, forbidden: int = 0) -> tuple[bytes, Rows] | None:
    """(the inner message without its rows, the rows, their data a view into frame). Raises: RemoteProtocolError.

    None when the frame is anything but one inner message with one Rows with one data, and no field `forbidden`:
    repeated fields, which a parser would merge, are left to the generated code.
    """
    outer = read_fields(frame, 0, len(frame))
    if outer is None or len(outer) != 1 or outer[0].tag != inner_tag:
        return None
    inner = _split_at(frame, outer[0].value_start, outer[0].value_end, rows_tag, forbidden)
    if inner is None:
        return None
    around, start, end = inner
    found = _split_at(frame, start, end, _TAG_DATA)
    if found is None:
        return None
    rows_head, start, end = found
    rows = parse(pb.Rows, rows_head)
    return around, from_wire_rows(rows.n_rows, rows.dtype, memoryview(frame)[start:end])


def _split_at(frame: bytes, start: int, end: int, tag: int, forbidden: int = 0) -> tuple[bytes, int, int] | None:
    """The one field `tag` of frame[start:end]: (the bytes of the others, where its value starts, where it ends)."""
    fields = read_fields(frame, start, end)
    if fields is None or (forbidden and any(field.tag == forbidden for field in fields)):
        return None
    found = [field for field in fields if field.tag == tag]
    if len(found) != 1:
        return None
    return frame[start : found[0].start] + frame[found[0].value_end : end], found[0].value_start, found[0].value_end
