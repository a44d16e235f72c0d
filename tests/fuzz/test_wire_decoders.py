"""The invariant: any bytes decode to a value, or raise RemoteProtocolError; never anything else.

Besides arbitrary bytes, good messages are cut, joined and mutated, and every value that comes out can be encoded and
decoded again to itself.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from swarm.errors import RemoteProtocolError
from swarm.facts import MAX_TAG, Hop, Known, LayerHeat, NodeFact, NodeState, SignedFact
from swarm.identity import NodeKey
from swarm.messages import (
    ExpertAnswer,
    ExpertCall,
    ExpertOpen,
    ExpertRefusal,
    Failure,
    HopTime,
    Leave,
    Open,
    Opened,
    Result,
    Rows,
    Step,
    TopLogits,
)
from swarm.terms import Address, ExpertRange, Infohash, Profile, SessionId, Span
from swarm.wire import (
    decode_accept_opening,
    decode_connect_opening,
    decode_dial_back_reply,
    decode_dial_back_request,
    decode_exchange_reply,
    decode_exchange_request,
    decode_expert_reply,
    decode_expert_request,
    decode_fact,
    decode_relay_data,
    decode_reserve_reply,
    decode_result,
    decode_results_request,
    decode_run_reply,
    decode_run_request,
    decode_signed_fact,
    encode_accept_opening,
    encode_connect_opening,
    encode_dial_back_reply,
    encode_dial_back_request,
    encode_exchange_reply,
    encode_exchange_request,
    encode_expert_reply,
    encode_expert_request,
    encode_fact,
    encode_relay_data,
    encode_reserve_reply,
    encode_result,
    encode_results_request,
    encode_run_reply,
    encode_run_request,
    encode_signed_fact,
)
from swarm.wire.codec import from_wire_open, from_wire_step
from swarm.wire.v1 import stage_pb2

NODE = NodeKey.generate().node_id
TIMES = (HopTime(NODE, 0.5, 0.25), HopTime(NODE, 0.0, 2.0))
HOPS = (Hop(NODE, Address("127.0.0.1", 7000), Span(0, 3)), Hop(NODE, Address("::1", 7001), Span(3, 9)))
RELEASE, SESSION = Infohash("ab" * 20), SessionId("cd" * 16)
FACT = NodeFact(
    NODE, RELEASE, Address("::1", 7), 3, 1e9, 60.0, NodeState.SERVING, (Span(0, 2), Span(3, 4)), Profile("bf16"), 9
)
PARTS = NodeFact(
    NODE, RELEASE, Address("::1", 7), 3, 1e9, 60.0, NodeState.JOINING, (Span(0, 2),), Profile("bf16"), 9,
    trunks=(Span(2, 4), Span(5, 9)), loaded_trunks=(Span(2, 3),),
    experts=(ExpertRange(Span(2, 4), (0, 2)), ExpertRange(Span(6, 7), (1,))),
    loaded_experts=(ExpertRange(Span(3, 4), (2,)),), n_experts=3, expert_wait_s=0.25,
    heat=(LayerHeat(2, bytes((255, 0, 130))),),
)  # fmt: skip
TWO_ROWS = Rows(2, "bf16", bytes(range(16)))
RELAYED = replace(FACT, address=Address("192.0.2.1", 7, NODE), relay=NODE, rtts=((1, 0.25), (MAX_TAG, 2.0)))
SIGNED = SignedFact(FACT, encode_fact(FACT), bytes(64))
ROW = TopLogits((5, 2, 9), (1.5, 1.0, -2.0), 2.0)

Decoder = Callable[[bytes], Any]
KINDS: dict[str, tuple[Decoder, Callable[[Any], bytes], list[bytes]]] = {
    "run_request": (
        decode_run_request,
        encode_run_request,
        [
            encode_run_request(Open(SESSION, 1, RELEASE, NODE, HOPS, 1, Profile("fp32"), 100, 8)),
            encode_run_request(Step(1, 5, (1, 2, 3), 1, TIMES)),
            encode_run_request(Step(1, 5, Rows(2, "bf16", bytes(range(16))), 1, TIMES)),
            encode_run_request(Step(1, 5, Rows(2, "bf16", bytes(range(16))), 1, TIMES, b"\x05\x80")),
            encode_run_request(
                Open(SESSION, 1, RELEASE, NODE, HOPS, 1, Profile("fp32"), 600, 8, (bytes(16), bytes(range(16))))
            ),
            encode_run_request(Step(1, 510, Rows(2, "bf16", bytes(range(16))), 1, TIMES, b"", (bytes(range(16)),))),
            encode_run_request(Open(SESSION, 2, RELEASE, NODE, HOPS, 1, Profile("fp32"), 600, 8, (), 577)),
            encode_run_request(Leave()),
        ],
    ),
    "run_reply": (
        decode_run_reply,
        encode_run_reply,
        [
            encode_run_reply(Opened(3)),
            encode_run_reply(Opened(3, 512)),
            encode_run_reply(Opened(3, 513, 100)),
            encode_run_reply(Failure(1, NODE, "StageFull", "full", 1.5)),
        ],
    ),
    "results_request": (
        decode_results_request,
        lambda value: encode_results_request(*value),
        [encode_results_request(SESSION, 4)],
    ),
    "result": (decode_result, encode_result, [encode_result(Result(1, 9, (ROW, ROW), TIMES))]),
    "fact": (decode_fact, encode_fact, [encode_fact(FACT), encode_fact(PARTS), encode_fact(RELAYED)]),
    "expert_request": (
        decode_expert_request,
        encode_expert_request,
        [
            encode_expert_request(ExpertOpen(RELEASE, Profile("fp32"))),
            encode_expert_request(ExpertCall(7, 3, ((0, (0, 1)), (5, (1,))), TWO_ROWS)),
        ],
    ),
    "expert_reply": (
        decode_expert_reply,
        encode_expert_reply,
        [
            encode_expert_reply(ExpertAnswer(7, TWO_ROWS, 0.5, 0.25)),
            encode_expert_reply(ExpertRefusal(7, "StageFull", "full")),
        ],
    ),
    "signed_fact": (decode_signed_fact, encode_signed_fact, [encode_signed_fact(SIGNED)]),
    "exchange_request": (
        decode_exchange_request,
        lambda value: encode_exchange_request(*value),
        [
            encode_exchange_request(RELEASE, [SIGNED, SIGNED]),
            encode_exchange_request(RELEASE, [SIGNED], Known(3, MAX_TAG, {7: 1, MAX_TAG: 2})),
        ],
    ),
    "exchange_reply": (
        decode_exchange_reply,
        lambda value: encode_exchange_reply(*value),
        [encode_exchange_reply([SIGNED, SIGNED], more=True)],
    ),
    "dial_back_request": (decode_dial_back_request, encode_dial_back_request, [encode_dial_back_request(7000)]),
    "dial_back_reply": (
        decode_dial_back_reply,
        lambda value: encode_dial_back_reply(*value),
        [encode_dial_back_reply("::1", "refused"), encode_dial_back_reply("192.0.2.1", "")],
    ),
    "reserve_reply": (decode_reserve_reply, encode_reserve_reply, [encode_reserve_reply(bytes(range(16)))]),
    "connect_opening": (decode_connect_opening, encode_connect_opening, [encode_connect_opening(NODE)]),
    "accept_opening": (decode_accept_opening, encode_accept_opening, [encode_accept_opening(bytes(range(16)))]),
    "relay_data": (decode_relay_data, encode_relay_data, [encode_relay_data(b"\x16\x03\x01")]),
}
SEEDS = [seed for _, _, seeds in KINDS.values() for seed in seeds]


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    """A good message of any kind after a few edits: bytes set, cut out, repeated, or another message spliced in."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(min_value=0, max_value=4))):
        at = draw(st.integers(min_value=0, max_value=len(data)))
        length = draw(st.integers(min_value=0, max_value=12))
        match draw(st.integers(min_value=0, max_value=4)):
            case 0:
                data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case 1:
                del data[at : at + length]
            case 2:
                data[at:at] = data[at : at + length]
            case 3:
                data[at:at] = draw(st.binary(max_size=12))
            case 4:
                data[at:] = draw(st.sampled_from(SEEDS))[at:]
    return bytes(data)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=150)
@given(data=st.one_of(st.binary(max_size=200), mutants()))
def test_any_bytes_are_a_value_or_a_protocol_error(kind: str, data: bytes) -> None:
    decode, encode, _ = KINDS[kind]
    value = outcome(decode, data)
    if isinstance(value, RemoteProtocolError):
        assert value.message.isprintable()
    else:
        assert decode(encode(value)) == value


@settings(max_examples=400)
@given(frame=st.one_of(st.binary(max_size=60), mutants()))
@example(frame=SEEDS[2] + SEEDS[2])
@example(frame=SEEDS[1] + SEEDS[2])
@example(frame=SEEDS[2] + SEEDS[1])
@example(frame=SEEDS[0] + SEEDS[2])
@example(frame=b"\x12\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01")
@example(frame=b"\x92\x80\x80\x80\x80\x00" + SEEDS[2][1:])
def test_reading_around_the_tensor_agrees_with_the_generated_parser(frame: bytes) -> None:
    """Two readers of one format are a hole wherever they differ."""
    ours, theirs = outcome(decode_run_request, frame), outcome(decode_by_generated_code, frame)
    assert ours == theirs or (isinstance(ours, RemoteProtocolError) and isinstance(theirs, RemoteProtocolError))


def outcome(decode: Decoder, data: bytes) -> Any:
    try:
        return decode(data)
    except RemoteProtocolError as error:
        return error


def decode_by_generated_code(frame: bytes) -> Any:
    try:
        wire = stage_pb2.RunRequest.FromString(frame)
    except DecodeError:
        raise RemoteProtocolError("malformed") from None
    match wire.WhichOneof("request"):
        case "open":
            return from_wire_open(wire.open)
        case "step":
            return from_wire_step(wire.step)
        case "leave":
            return Leave()
    raise RemoteProtocolError("empty")
