"""Bodies are bounded before they are believed, and each field is what it claims or the answer says what it is not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.gateway.bodies import MAX_VALUES, ClientGone, Fields, parse_json, read_body
from swarm.gateway.faults import BadField, Refused

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def arriving(*messages: dict[str, Any]) -> Any:
    left = iter(messages)

    async def receive() -> dict[str, Any]:
        return next(left)

    return receive


def scope(**headers: str) -> dict[str, Any]:
    pairs = {"content_type": "application/json", **headers}
    return {"headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in pairs.items()]}


async def refusal(scope: dict[str, Any], messages: Sequence[dict[str, Any]], max_bytes: int = 100) -> Refused:
    with pytest.raises(Refused) as caught:
        await read_body(scope, arriving(*messages), max_bytes, lambda n_bytes: None)
    return caught.value


async def test_a_body_may_come_in_parts() -> None:
    parts = [{"type": "http.request", "body": part, "more_body": True} for part in (b'{"a"', b": [1", b", 2]")]
    messages = [*parts, {"type": "http.request", "body": b"}", "more_body": False}]
    taken: list[int] = []
    body = await read_body(scope(), arriving(*messages), 100, taken.append)
    assert parse_json(body, max_depth=8) == {"a": [1, 2]}
    assert taken == [4, 4, 4, 1]


async def test_too_large_is_413_as_soon_as_that_is_known() -> None:
    assert (await refusal(scope(content_length="101"), [])).fault.status == 413
    chunk = {"type": "http.request", "body": b"x" * 60, "more_body": True}
    assert (await refusal(scope(), [chunk, chunk])).fault.status == 413


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_what_a_form_of_another_site_could_send_is_refused(content_type: str) -> None:
    assert (await refusal(scope(content_type=content_type), [])).fault.status == 415


async def test_a_caller_that_leaves_early_is_told_apart() -> None:
    with pytest.raises(ClientGone):
        await read_body(scope(), arriving({"type": "http.disconnect"}), 100, lambda n_bytes: None)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b'"a"', b"null", b"\xff\xfe", b'{"a": NaN}', b'{"a": -Infinity}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a":' + b"[" * 9 + b"]" * 9 + b"}", b'{"a":' + b"[" * 100_000, b'{"a":' * 100_000,
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=lambda body: body[:12].decode("latin-1"),
)  # fmt: skip
def test_what_is_no_object_of_bounded_depth_is_400(body: bytes) -> None:
    with pytest.raises(Refused) as caught:
        parse_json(body, max_depth=8)
    assert caught.value.fault.status == 400


@given(st.binary(max_size=200) | JSON_VALUES.map(lambda value: json.dumps(value).encode()))
def test_bytes_parse_or_are_refused(body: bytes) -> None:
    try:
        parsed = parse_json(body, max_depth=8)
    except Refused:
        return
    assert isinstance(parsed, dict)


@given(JSON_VALUES)
def test_every_reader_takes_its_type_or_names_the_field(value: Any) -> None:
    readers = ("text", "flag", "whole", "number", "object", "list", "texts")
    for reader in readers:
        fields = Fields({"field": value, "other": 1})
        problem = None
        try:
            getattr(fields, reader)("field")
        except BadField as error:
            problem = error
        assert problem is None or (problem.loc == ("field",) and "field" in problem.message)
        assert fields.unknown == ("other",)


def test_null_is_left_out_and_ranges_hold() -> None:
    fields = Fields({"a": None, "b": 3.0, "c": 2.5, "d": True, "e": 7})
    assert fields.text("a") is None and fields.flag("a") is False and fields.texts("a") == ()
    assert fields.whole("b") == 3
    for name, kind in (("c", "int_type"), ("d", "int_type")):
        with pytest.raises(BadField) as caught:
            fields.whole(name)
        assert caught.value.kind == kind
    with pytest.raises(BadField, match="from 0 to 5"):
        fields.whole("e", 0, 5)


def test_a_foreign_field_is_unknown_whoever_takes_it() -> None:
    fields = Fields({"seed": 1, "user": "me"}, frozenset({"seed", "user"}))
    assert fields.whole("seed") is None
    fields.ignore("user")
    assert fields.unknown == ("seed", "user")


def test_what_cannot_be_honoured_is_refused_unless_it_asks_for_nothing() -> None:
    fields = Fields({"a": 0, "b": 0.0, "c": 0.1})
    fields.must_be("a", (0,), "no")
    fields.must_be("b", (0,), "no")
    fields.must_be("absent", (0,), "no")
    with pytest.raises(BadField, match=r"c is 0\.1, but nobody does; leave it out"):
        fields.must_be("c", (0,), "nobody does")


@pytest.mark.parametrize("digits", [400, 4299])
@pytest.mark.parametrize("sign", ["", "-"])
def test_a_number_beyond_all_floats_is_refused_as_any_other(digits: int, sign: str) -> None:
    """The shown number is cut short: thousands of digits cannot even be multiplied and written again."""
    body = parse_json(f'{{"x": {sign}1{"0" * (digits - 1)}}}'.encode(), max_depth=8)
    for take in (lambda fields: fields.number("x", 0.0, 1.0), lambda fields: fields.whole("x")):
        with pytest.raises(BadField) as caught:
            take(Fields(body))
        assert caught.value.loc == ("x",) and len(caught.value.message) < 200


@pytest.mark.parametrize("value", [b"[]", b"{}", b"1"])
def test_a_body_of_more_values_than_can_be_read_at_once_is_413(value: bytes) -> None:
    """Reading JSON cannot be interrupted: a few megabytes of empty lists hold everything up for a third of a second."""
    with pytest.raises(Refused) as caught:
        parse_json(b'{"a": [' + b",".join([value] * (MAX_VALUES + 1)) + b"]}", max_depth=8)
    assert caught.value.fault.status == 413
    n_most = MAX_VALUES // (2 if value != b"1" else 1) - 2
    assert len(parse_json(b'{"a": [' + b",".join([value] * n_most) + b"]}", max_depth=8)["a"]) == n_most
