"""Protobuf's outer grammar: which fields a message has and where, without parsing what is in them.

Source: protobuf.dev, Encoding.
"""

from __future__ import annotations

from typing import NamedTuple

MAX_FIELDS = 1024
"""Read one by one in Python, so a message of more is left to the generated parser, and to its limit."""


class Field(NamedTuple):
    """tag: the field's number << 3 | its wire type. start, value_start, value_end: places in the frame."""

    tag: int
    start: int
    value_start: int
    value_end: int


def read_fields(frame: bytes, start: int, end: int) -> list[Field] | None:
    """The fields of the message in frame[start:end]; None when it is malformed, or has more than MAX_FIELDS."""
    fields: list[Field] = []
    at = start
    while at < end:
        field_start = at
        tag, at = read_varint(frame, at, end)
        if tag >> 32 or at - field_start > 5:
            return None
        match tag & 7:
            case 0:
                value_start = at
                _, at = read_varint(frame, at, end)
            case 1:
                value_start, at = at, at + 8
            case 2:
                length, value_start = read_varint(frame, at, end)
                at = value_start + length
            case 5:
                value_start, at = at, at + 4
            case _:
                return None
        if at > end or len(fields) == MAX_FIELDS:
            return None
        fields.append(Field(tag, field_start, value_start, at))
    return fields


def encode_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(frame: bytes, at: int, end: int) -> tuple[int, int]:
    """The number at `at` and the place after it; a place beyond `end` when there is none."""
    value = shift = 0
    while at < end and shift < 64:
        byte = frame[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    return 0, end + 1
