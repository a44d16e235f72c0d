from __future__ import annotations

import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import RemoteProtocolError
from swarm.messages import ExpertAnswer, ExpertCall, ExpertOpen, ExpertRefusal, Rows
from swarm.terms import ExpertId, Infohash, Profile
from swarm.wire import decode_expert_reply, decode_expert_request, encode_expert_reply, encode_expert_request
from swarm.wire.v1 import experts_pb2 as pb

ROWS = Rows(3, "bf16", bytes(range(24)))


@st.composite
def calls(draw: st.DrawFn) -> ExpertCall:
    n_rows, dim = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    rows = Rows(n_rows, "fp32", draw(st.binary(min_size=4 * n_rows * dim, max_size=4 * n_rows * dim)))
    idxs = st.lists(st.integers(0, n_rows - 1), min_size=1, unique=True).map(lambda found: tuple(sorted(found)))
    wanted = draw(st.dictionaries(st.integers(0, 7), idxs, min_size=1))
    return ExpertCall(draw(st.integers(0, 1 << 40)), draw(st.integers(0, 99)), tuple(sorted(wanted.items())), rows)


@given(call=calls())
def test_a_call_round_trip_in_the_bytes_of_the_generated_code(call: ExpertCall) -> None:
    frame = encode_expert_request(call)
    assert decode_expert_request(frame) == call
    assert pb.ExpertRequest.FromString(frame).SerializeToString() == frame


def test_the_others_round_trip() -> None:
    opening = ExpertOpen(Infohash("ab" * 20), Profile("bf16"))
    assert decode_expert_request(encode_expert_request(opening)) == opening
    answer = ExpertAnswer(9, ROWS, 0.5, 0.25)
    frame = encode_expert_reply(answer)
    assert decode_expert_reply(frame) == answer
    assert pb.ExpertReply.FromString(frame).SerializeToString() == frame
    refusal = ExpertRefusal(9, "StageFull", "full")
    assert decode_expert_reply(encode_expert_reply(refusal)) == refusal


def test_tensors_come_in_without_a_copy_and_go_out_of_any_buffer() -> None:
    rows = Rows(1, "fp32", memoryview(array.array("f", [1.0, 2.0])))
    call = decode_expert_request(encode_expert_request(ExpertCall(1, 0, ((0, (0,)),), rows)))
    assert isinstance(call, ExpertCall) and isinstance(call.rows.data, memoryview)
    assert bytes(call.rows.data) == array.array("f", [1.0, 2.0]).tobytes()


def test_what_a_call_is_about() -> None:
    call = ExpertCall(1, 4, ((2, (0, 1)), (5, (1,))), ROWS)
    assert call.experts == (ExpertId(4, 2), ExpertId(4, 5))
    assert call.n_answers == 3


@pytest.mark.parametrize(
    "wanted",
    [
        (),
        ((1, ()),),
        ((1, (3,)),),
        ((1, (1, 1)),),
        ((1, (2, 0)),),
        ((2, (0,)), (1, (0,))),
        ((1, (0,)), (1, (1,))),
        ((1024, (0,)),),
    ],
)
def test_calls_out_of_bounds_are_refused(wanted: tuple[tuple[int, tuple[int, ...]], ...]) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_expert_request(encode_expert_request(ExpertCall(1, 0, wanted, ROWS)))


@pytest.mark.parametrize("frame", [b"", pb.ExpertReply(refusal=pb.ExpertRefusal(code="a b")).SerializeToString()])
def test_replies_out_of_bounds_are_refused(frame: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_expert_reply(frame)
