"""Whatever native value goes out comes back equal, and what breaks a bound does not come in."""

import struct
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import RemoteProtocolError
from swarm.facts import MAX_TAG, Hop, Known, LayerHeat, NodeFact, NodeState, Reachability, SignedFact
from swarm.identity import NodeKey
from swarm.messages import Failure, HopTime, Open, Opened, Result, Rows, Step, TopLogits
from swarm.pages import MAX_PAGES_OFFERED, PAGE, n_pages_completed
from swarm.terms import Address, ExpertRange, Infohash, NodeId, Profile, SessionId, Span
from swarm.wire import (
    MAX_RTTS,
    decode_dial_back_reply,
    decode_exchange_reply,
    decode_exchange_request,
    decode_fact,
    decode_result,
    decode_results_request,
    decode_run_reply,
    decode_run_request,
    decode_signed_fact,
    encode_dial_back_reply,
    encode_exchange_reply,
    encode_exchange_request,
    encode_fact,
    encode_result,
    encode_results_request,
    encode_run_reply,
    encode_run_request,
    encode_signed_fact,
)
from swarm.wire.checks import MAX_POSITIONS
from swarm.wire.codec import to_wire_step
from swarm.wire.v1 import node_pb2, stage_pb2

# Of fixed keys: frames that hold them name tests, and every worker has to collect the same names.
NODE_IDS = tuple(NodeKey(Ed25519PrivateKey.from_private_bytes(bytes([i] * 32))).node_id for i in range(4))

node_ids = st.sampled_from(NODE_IDS)
seconds = st.floats(min_value=0, max_value=1e6, width=32)
counters = st.integers(min_value=0, max_value=2**63 - 1)
session_ids = st.binary(min_size=16, max_size=16).map(lambda raw: SessionId(raw.hex()))
infohashes = st.binary(min_size=20, max_size=20).map(lambda raw: Infohash(raw.hex()))
hosts = st.sampled_from(["127.0.0.1", "::1", "fe80::1", "node.example", "localhost"])
ports = st.integers(min_value=1, max_value=65535)
addresses = st.builds(Address, hosts, ports)
tags = st.integers(min_value=0, max_value=MAX_TAG)
knowns = st.builds(Known, tags, tags, st.dictionaries(tags, counters, max_size=5))
profiles = st.sampled_from([Profile("fp32"), Profile("bf16")])
hashes = st.binary(min_size=16, max_size=16)
hop_times = st.lists(st.builds(HopTime, node_ids, seconds, seconds), max_size=5).map(tuple)


@st.composite
def hop_lists(draw: st.DrawFn) -> tuple[Hop, ...]:
    ends = sorted(draw(st.sets(st.integers(min_value=1, max_value=200), min_size=1, max_size=8)))
    spans = [Span(a, b) for a, b in zip([0, *ends], ends, strict=False)]
    return tuple(Hop(draw(node_ids), draw(addresses), span) for span in spans)


@st.composite
def opens(draw: st.DrawFn) -> Open:
    hops = draw(hop_lists())
    max_positions = draw(st.integers(min_value=1, max_value=2**24))
    most_pages = min(5, (max_positions - 1) // PAGE)
    return Open(
        session_id=draw(session_ids),
        epoch=draw(counters),
        release=draw(infohashes),
        client_id=draw(node_ids),
        hops=hops,
        hop_idx=draw(st.integers(min_value=0, max_value=len(hops) - 1)),
        profile=draw(profiles),
        max_positions=max_positions,
        n_top=draw(st.integers(min_value=1, max_value=2**20)),
        page_hashes=tuple(draw(st.lists(hashes, max_size=most_pages))),
        fed_positions=draw(st.integers(min_value=0, max_value=max_positions - 1)),
    )


@st.composite
def rows_payloads(draw: st.DrawFn) -> Rows:
    n_rows, dim = draw(st.integers(min_value=1, max_value=9)), draw(st.integers(min_value=1, max_value=40))
    dtype, itemsize = draw(st.sampled_from([("fp32", 4), ("bf16", 2)]))
    size = n_rows * dim * itemsize
    return Rows(n_rows, dtype, draw(st.binary(min_size=size, max_size=size)))


@st.composite
def steps(draw: st.DrawFn, payloads: st.SearchStrategy[Any] | None = None) -> Step:
    token_ids = st.lists(st.integers(min_value=0, max_value=2**32 - 1), min_size=1, max_size=300).map(tuple)
    payload = draw(payloads if payloads is not None else st.one_of(token_ids, rows_payloads()))
    n_rows = payload.n_rows if isinstance(payload, Rows) else len(payload)
    n_logit_rows = draw(st.integers(min_value=0, max_value=n_rows))
    at_a_page_end = st.integers(min_value=1, max_value=9).map(lambda page: page * PAGE - 1)
    position = draw(st.one_of(st.integers(min_value=0, max_value=2**24 - n_rows), at_a_page_end))
    n_pages = draw(st.sampled_from([0, n_pages_completed(position, n_rows)]))
    return Step(
        epoch=draw(counters),
        position=position,
        payload=payload,
        n_logit_rows=n_logit_rows,
        hop_times=draw(hop_times),
        allowed=draw(st.binary(max_size=40)) if n_logit_rows == 1 else b"",
        page_hashes=tuple(draw(hashes) for _ in range(n_pages)),
    )


@st.composite
def top_logits(draw: st.DrawFn) -> TopLogits:
    logits = draw(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=20))
    ids = draw(
        st.lists(st.integers(min_value=0, max_value=2**32 - 1), unique=True, min_size=len(logits), max_size=len(logits))
    )
    return TopLogits(tuple(ids), tuple(sorted(logits, reverse=True)), draw(st.floats(-1e6, 1e6, width=32)))


results = st.builds(
    Result,
    counters,
    st.integers(min_value=1, max_value=2**24),
    st.lists(top_logits(), max_size=4).map(tuple),
    hop_times,
)
failures = st.builds(
    Failure,
    st.integers(min_value=0, max_value=255),
    node_ids,
    st.sampled_from(["SessionLost", "StageFull", "Unheard_of"]),
    st.text(alphabet=st.characters(categories=("L", "N", "P")), max_size=200),
    seconds,
)


@st.composite
def facts(draw: st.DrawFn) -> NodeFact:
    edges = sorted(draw(st.sets(st.integers(min_value=0, max_value=99), max_size=12)))
    spans = tuple(Span(a, b) for a, b in zip(edges[::2], edges[1::2], strict=False))
    loaded = tuple(Span(s.start, draw(st.integers(s.start + 1, s.end))) for s in spans if draw(st.booleans()))
    node_id, relay = draw(node_ids), draw(st.none() | node_ids)
    return NodeFact(
        loaded_spans=loaded,
        node_id=node_id,
        release=draw(infohashes),
        address=Address(draw(hosts), draw(ports), node_id if relay else ""),
        seq=draw(counters),
        issued_at_s=draw(st.floats(min_value=0, max_value=1e11)),
        ttl_s=draw(seconds),
        state=draw(st.sampled_from(NodeState)),
        spans=spans,
        profile=draw(profiles),
        n_layers=draw(st.integers(min_value=100, max_value=200)),
        free_sessions=draw(st.integers(min_value=0, max_value=2**32 - 1)),
        layer_time_s=draw(seconds),
        torrent_port=draw(st.integers(min_value=0, max_value=65535)),
        needed_bytes=draw(counters),
        fetched_bytes=draw(counters),
        found_bytes=draw(counters),
        uploaded_bytes=draw(counters),
        downloaded_bytes=draw(counters),
        version=draw(st.sampled_from(["", "0.1.0", "1.0.0+local"])),
        reachability=draw(st.sampled_from(Reachability)),
        relay=relay,
        relay_places=draw(st.integers(min_value=0, max_value=1 << 16)),
        rtts=tuple(draw(st.lists(st.tuples(tags, seconds), max_size=MAX_RTTS))),
        placed_at_s=draw(st.floats(min_value=0, max_value=1e11)),
        leaving_spans=loaded,
        throughput=draw(st.floats(min_value=0, max_value=2**29, width=32)),
        queue_s=draw(seconds),
    )


@st.composite
def signed_facts(draw: st.DrawFn) -> SignedFact:
    fact = draw(facts())
    return SignedFact(fact, encode_fact(fact), draw(st.binary(min_size=64, max_size=64)))


@given(opening=opens())
def test_open_round_trip(opening: Open) -> None:
    assert decode_run_request(encode_run_request(opening)) == opening


@given(step=steps())
def test_step_round_trip_in_the_bytes_of_the_generated_code(step: Step) -> None:
    frame = encode_run_request(step)
    assert decode_run_request(frame) == step
    assert frame == stage_pb2.RunRequest(step=to_wire_step(step)).SerializeToString()


@given(step=steps(payloads=rows_payloads()), order=st.permutations(range(5)))
def test_rows_are_found_wherever_a_writer_puts_them(step: Step, order: list[int]) -> None:
    """Another writer may order fields as it likes; the answer is the generated parser's."""
    wire = to_wire_step(step)
    pieces = []
    for name in ("epoch", "position", "rows", "n_logit_rows", "allowed"):
        piece = stage_pb2.Step()
        if name == "rows":
            piece.rows.MergeFrom(wire.rows)
        else:
            setattr(piece, name, getattr(wire, name))
        pieces.append(piece.SerializeToString())
    rest = stage_pb2.Step(hop_times=wire.hop_times, page_hashes=wire.page_hashes)
    body = b"".join(pieces[i] for i in order) + rest.SerializeToString()
    frame = stage_pb2.RunRequest(step=stage_pb2.Step.FromString(body)).SerializeToString()
    head = len(frame) - len(body)
    assert decode_run_request(frame[:head] + body) == step


def test_a_tensor_comes_in_without_a_copy() -> None:
    frame = encode_run_request(Step(1, 0, Rows(4, "bf16", bytes(64)), 0))
    step = decode_run_request(frame)
    assert isinstance(step, Step)
    assert isinstance(step.payload, Rows)
    assert isinstance(step.payload.data, memoryview)
    assert step.payload.data.obj is frame


def test_a_tensor_goes_out_of_any_buffer() -> None:
    raw = bytes(range(64))
    typed = memoryview(bytearray(raw)).cast("H", (4, 8))
    assert encode_run_request(Step(1, 0, Rows(4, "bf16", typed), 0)) == encode_run_request(
        Step(1, 0, Rows(4, "bf16", raw), 0)
    )


def test_a_large_tensor_passes() -> None:
    data = bytes(8 << 20)
    step = decode_run_request(encode_run_request(Step(1, 0, Rows(1024, "bf16", data), 1)))
    assert isinstance(step, Step)
    assert isinstance(step.payload, Rows)
    assert len(step.payload.data) == len(data)


cached = st.integers(min_value=0, max_value=MAX_POSITIONS - 1)


@given(reply=st.one_of(failures, st.builds(Opened, counters, cached, cached)))
def test_run_reply_round_trip(reply: Opened | Failure) -> None:
    assert decode_run_reply(encode_run_reply(reply)) == reply


@given(session_id=session_ids, epoch=counters)
def test_results_request_round_trip(session_id: SessionId, epoch: int) -> None:
    assert decode_results_request(encode_results_request(session_id, epoch)) == (session_id, epoch)


@given(result=results)
def test_result_round_trip(result: Result) -> None:
    assert decode_result(encode_result(result)) == result


def test_a_result_of_a_whole_vocabulary_passes() -> None:
    n_vocab = 131_072
    row = TopLogits(tuple(range(n_vocab)), tuple(float(-i) for i in range(n_vocab)), 1.0)
    result = Result(1, 4, (row, row, row), ())
    assert decode_result(encode_result(result)) == result


@given(fact=facts())
def test_fact_round_trip(fact: NodeFact) -> None:
    assert decode_fact(encode_fact(fact)) == fact


@pytest.mark.parametrize(
    "changes",
    [
        {"relay": NODE_IDS[1]},
        {"address": Address("192.0.2.1", 7, NODE_IDS[0])},
        {"address": Address("192.0.2.1", 7, NODE_IDS[2]), "relay": NODE_IDS[1]},
    ],
)
def test_a_relays_address_leads_to_the_node_that_speaks_and_to_no_other(changes: dict[str, Any]) -> None:
    fact = NodeFact(
        NODE_IDS[0], Infohash("ab" * 20), Address("::1", 7), 1, 1.0, 1.0, NodeState.SERVING, (), Profile("bf16"), 4
    )
    with pytest.raises(RemoteProtocolError):
        decode_fact(encode_fact(replace(fact, **changes)))


@given(release=infohashes, known=st.lists(signed_facts(), max_size=4).map(tuple), seqs=knowns)
def test_signed_facts_round_trip(release: Infohash, known: tuple[SignedFact, ...], seqs: Known) -> None:
    assert decode_exchange_request(encode_exchange_request(release, known, seqs)) == (release, known, seqs)
    assert decode_exchange_request(encode_exchange_request(release, known)) == (release, known, Known())
    assert decode_exchange_reply(encode_exchange_reply(known, more=False)) == (known, False)
    for signed in known:
        assert decode_signed_fact(encode_signed_fact(signed)) == signed


def test_unreadable_facts_are_left_out_of_an_exchange() -> None:
    """A node of a newer version may pass on what we cannot read; the rest of its facts still count."""
    fact = NodeFact(
        NODE_IDS[0], Infohash("ab" * 20), Address("::1", 7), 1, 1.0, 1.0, NodeState.SERVING, (), Profile("bf16"), 4
    )
    good = SignedFact(fact, encode_fact(fact), bytes(64))
    newer = node_pb2.NodeFact.FromString(good.payload)
    newer.profile = "int3-of-next-year"
    wire = node_pb2.ExchangeReply(
        facts=[
            node_pb2.SignedFact(payload=newer.SerializeToString(), signature=bytes(64)),
            node_pb2.SignedFact(payload=good.payload, signature=bytes(64)),
            node_pb2.SignedFact(payload=good.payload, signature=bytes(63)),
        ]
    )
    assert decode_exchange_reply(wire.SerializeToString()) == ((good,), False)


def test_facts_keep_what_a_newer_version_added_to_them() -> None:
    """The signature is over the payload, so unknown fields must survive being passed on."""
    fact = NodeFact(
        NODE_IDS[0], Infohash("ab" * 20), Address("::1", 7), 1, 1.0, 1.0, NodeState.SERVING, (), Profile("bf16"), 4
    )
    payload = encode_fact(fact) + b"\xfa\x07\x03new"
    signed = decode_signed_fact(node_pb2.SignedFact(payload=payload, signature=bytes(64)).SerializeToString())
    assert signed == SignedFact(fact, payload, bytes(64))
    assert decode_exchange_reply(encode_exchange_reply([signed], more=True)) == ((signed,), True)


def test_text_for_people_steers_no_terminal() -> None:
    failure = Failure(0, NODE_IDS[0], "SessionLost", "\x1b[2Jgone\n\u202eevil" + "x" * 5000)
    decoded = decode_run_reply(encode_run_reply(failure))
    assert isinstance(decoded, Failure)
    assert decoded.message.isprintable()
    assert len(decoded.message) == 2000


ROWS = stage_pb2.Rows(n_rows=2, dtype=stage_pb2.DTYPE_BF16, data=bytes(8))
NAN, INF = float("nan"), float("inf")


def step_frame(**fields: Any) -> bytes:
    return stage_pb2.RunRequest(step=stage_pb2.Step(**{"epoch": 1, "rows": ROWS, **fields})).SerializeToString()


def open_frame(**fields: Any) -> bytes:
    wire = stage_pb2.Open(
        session_id=bytes(16),
        epoch=1,
        release=bytes(20),
        client_id=NODE_IDS[0],
        hops=[hop(0, 2), hop(2, 4)],
        hop_idx=1,
        profile="bf16",
        max_positions=10,
        n_top=1,
    )
    for name, value in fields.items():
        wire.ClearField(name)
        wire.MergeFrom(stage_pb2.Open(**{name: value}))
    return stage_pb2.RunRequest(open=wire).SerializeToString()


def hop(start: int, end: int, address: str = "127.0.0.1:7", node_id: NodeId = NODE_IDS[1]) -> stage_pb2.Hop:
    return stage_pb2.Hop(node_id=node_id, address=address, span=stage_pb2.Span(start=start, end=end))


def hop_time(queue_s: float, compute_s: float = 0.0, node_id: str = NODE_IDS[0]) -> stage_pb2.HopTime:
    return stage_pb2.HopTime(node_id=node_id, queue_s=queue_s, compute_s=compute_s)


def rows(**fields: Any) -> stage_pb2.Rows:
    return stage_pb2.Rows(**{"n_rows": 2, "dtype": stage_pb2.DTYPE_BF16, "data": bytes(8), **fields})


def test_the_frames_that_the_next_test_breaks_are_good() -> None:
    assert isinstance(decode_run_request(step_frame()), Step)
    assert isinstance(decode_run_request(step_frame(n_logit_rows=1, allowed=bytes(2**15))), Step)
    assert isinstance(decode_run_request(step_frame(position=511, page_hashes=[bytes(16)])), Step)
    assert isinstance(decode_run_request(open_frame()), Open)
    assert isinstance(decode_run_request(open_frame(max_positions=513, page_hashes=[bytes(16)] * 2)), Open)
    most = [bytes(16)] * MAX_PAGES_OFFERED
    assert isinstance(decode_run_request(open_frame(max_positions=2**24, page_hashes=most)), Open)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        stage_pb2.RunRequest(step=stage_pb2.Step(epoch=1)).SerializeToString(),
        step_frame(epoch=2**63),
        step_frame(position=2**24 - 1),
        step_frame(n_logit_rows=3),
        step_frame(n_logit_rows=1, allowed=bytes(2**15 + 1)),
        step_frame(n_logit_rows=0, allowed=b"x"),
        step_frame(n_logit_rows=2, allowed=b"x"),
        step_frame(rows=rows(n_rows=0)),
        step_frame(rows=rows(n_rows=65537, data=bytes(2 * 65537))),
        step_frame(rows=rows(n_rows=3)),
        step_frame(rows=rows(data=b"")),
        step_frame(rows=rows(data=bytes(6), n_rows=2)),
        step_frame(rows=rows(dtype=stage_pb2.DTYPE_UNSPECIFIED)),
        step_frame(rows=rows(dtype=77)),
        step_frame(position=510, page_hashes=[bytes(16)] * 2),  # one page ends here
        step_frame(position=512, page_hashes=[bytes(16)]),  # and here none
        step_frame(position=510, page_hashes=[bytes(15)]),
        step_frame(position=510, page_hashes=[bytes(17)]),
        step_frame(hop_times=[hop_time(NAN)]),
        step_frame(hop_times=[hop_time(0.0, INF)]),
        step_frame(hop_times=[hop_time(-1.0)]),
        step_frame(hop_times=[hop_time(0.0, node_id="me")]),
        step_frame(hop_times=[hop_time(0.0)] * 257),
        stage_pb2.RunRequest(step=stage_pb2.Step(epoch=1, token_ids=stage_pb2.TokenIds(ids=[]))).SerializeToString(),
        stage_pb2.RunRequest(
            step=stage_pb2.Step(epoch=1, token_ids=stage_pb2.TokenIds(ids=[1] * 65537))
        ).SerializeToString(),
        open_frame(session_id=bytes(15)),
        open_frame(release=bytes(32)),
        open_frame(client_id="A" * 52),
        open_frame(hops=[]),
        open_frame(hops=[hop(0, 2), hop(3, 4)]),
        open_frame(hops=[hop(1, 2)]),
        open_frame(hops=[hop(0, 2), hop(2, 2)]),
        open_frame(hops=[hop(0, 2), hop(2, 4, address="127.0.0.1:0")]),
        open_frame(hops=[hop(0, 2), hop(2, 4, address="not an address")]),
        open_frame(hops=[hop(0, 2), hop(2, 4, address="a\x1bb:80")]),
        open_frame(hops=[hop(i, i + 1) for i in range(257)], hop_idx=0),
        open_frame(hop_idx=2),
        open_frame(profile="fp12"),
        open_frame(max_positions=0),
        open_frame(max_positions=2**24 + 1),
        open_frame(n_top=0),
        open_frame(max_positions=512, page_hashes=[bytes(16)] * 2),  # no position would be left to compute
        open_frame(max_positions=513, page_hashes=[bytes(16)] * 3),
        open_frame(max_positions=513, page_hashes=[b""]),
        open_frame(max_positions=513, fed_positions=513),
        open_frame(max_positions=513, page_hashes=[bytes(16), bytes(32)]),
        open_frame(max_positions=2**24, page_hashes=[bytes(16)] * (MAX_PAGES_OFFERED + 1)),
    ],
)
def test_run_requests_out_of_bounds_are_refused(frame: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_run_request(frame)


@pytest.mark.parametrize("n", [MAX_POSITIONS, 2**32 - 1])
@pytest.mark.parametrize("field", ["cached", "answered"])
def test_an_opened_with_more_positions_than_there_can_be_is_refused(field: str, n: int) -> None:
    opened = stage_pb2.Opened(epoch=1, **{field: n - 1 if n == MAX_POSITIONS else 7})
    decode_run_reply(stage_pb2.RunReply(opened=opened).SerializeToString())
    setattr(opened, field, n)
    with pytest.raises(RemoteProtocolError):
        decode_run_reply(stage_pb2.RunReply(opened=opened).SerializeToString())


def top(ids: list[int], logits: list[float], log_sum_exp: float = 1.0) -> bytes:
    row = stage_pb2.TopLogits(ids=ids, logits=logits, log_sum_exp=log_sum_exp)
    return stage_pb2.Result(epoch=1, position=1, rows=[row]).SerializeToString()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        stage_pb2.Result(epoch=1, position=0).SerializeToString(),
        top([], []),
        top([1], [1.0, 0.5]),
        top([1, 1], [1.0, 0.5]),
        top([1, 2], [0.5, 1.0]),
        top([1], [INF]),
        top([1, 2], [0.0, -INF]),
        top([1, 2, 3], [2.0, NAN, 1.0]),
        top([1], [NAN]),
        top([1], [1.0], NAN),
    ],
)
def test_results_out_of_bounds_are_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_result(data)


def test_a_fact_of_irregular_experts_and_their_heat_passes() -> None:
    """64 layers of 8 experts, while it joins: about the most that one node has to tell."""
    fact = NodeFact(
        NODE_IDS[0], Infohash("ab" * 20), Address("127.0.0.1", 7), 1, 1.0, 60.0, NodeState.JOINING, (),
        Profile("bf16"), 64,
        trunks=(Span(0, 64),), n_experts=8,
        experts=tuple(ExpertRange(Span(i, i + 1), (i % 3, 3 + i % 2, 6, 7)) for i in range(64)),
        loaded_experts=tuple(ExpertRange(Span(i, i + 1), (i % 3, 7)) for i in range(64)),
        heat=tuple(LayerHeat(i, bytes(range(i, i + 8))) for i in range(64)),
    )  # fmt: skip
    assert decode_fact(encode_fact(fact)) == fact


def experts_range(start: int, end: int, *expert_idxs: int) -> node_pb2.ExpertRange:
    return node_pb2.ExpertRange(layers=stage_pb2.Span(start=start, end=end), expert_idxs=expert_idxs)


@pytest.mark.parametrize(
    "changes",
    [
        {"node_id": "me"},
        {"release": bytes(19)},
        {"address": "127.0.0.1"},
        {"seq": 2**64 - 1},
        {"issued_at_s": NAN},
        {"issued_at_s": -1.0},
        {"ttl_s": INF},
        {"state": 0},
        {"state": 9},
        {"spans": [stage_pb2.Span(start=0, end=5)]},
        {"spans": [stage_pb2.Span(start=2, end=3), stage_pb2.Span(start=0, end=1)]},
        {"spans": [stage_pb2.Span(start=0, end=2), stage_pb2.Span(start=1, end=3)]},
        {"spans": [stage_pb2.Span(start=0, end=2)], "loaded_spans": [stage_pb2.Span(start=1, end=3)]},
        {"loaded_spans": [stage_pb2.Span(start=0, end=1)]},
        {"profile": ""},
        {"n_layers": 0},
        {"n_layers": 65537},
        {"layer_time_s": -0.5},
        {"torrent_port": 65536},
        {"needed_bytes": 2**63},
        {"uploaded_bytes": 2**63},
        {"version": "x" * 9000},
        {"trunks": [stage_pb2.Span(start=0, end=5)], "n_experts": 2},
        {"trunks": [stage_pb2.Span(start=0, end=1)]},
        {"loaded_trunks": [stage_pb2.Span(start=0, end=1)], "n_experts": 2},
        {"n_experts": 1025},
        {"expert_wait_s": NAN},
        {"n_experts": 2, "experts": [experts_range(0, 1)]},
        {"n_experts": 2, "experts": [experts_range(0, 5, 1)]},
        {"n_experts": 2, "experts": [experts_range(0, 1, 2)]},
        {"n_experts": 2, "experts": [experts_range(0, 1, 1, 0)]},
        {"n_experts": 2, "experts": [experts_range(0, 2, 1), experts_range(1, 3, 0)]},
        {"n_experts": 2, "heat": [node_pb2.LayerHeat(layer_idx=4, shares=bytes(2))]},
        {"n_experts": 2, "heat": [node_pb2.LayerHeat(layer_idx=0, shares=bytes(3))]},
        {"n_experts": 2, "heat": [node_pb2.LayerHeat(layer_idx=0, shares=bytes(2))] * 5},
        {"placed_at_s": -1.0},
        {"leaving_spans": [stage_pb2.Span(start=0, end=5)]},
        {"leaving_spans": [stage_pb2.Span(start=0, end=1)] * 65},
        {"throughput": INF},
        {"throughput": 1e10},
        {"queue_s": NAN},
    ],
)
def test_facts_out_of_bounds_are_refused(changes: dict[str, Any]) -> None:
    good: dict[str, Any] = {
        "node_id": NODE_IDS[0],
        "release": bytes(20),
        "address": "127.0.0.1:7",
        "state": node_pb2.NODE_STATE_SERVING,
        "profile": "bf16",
        "n_layers": 4,
    }
    decode_fact(node_pb2.NodeFact(**good).SerializeToString())
    with pytest.raises(RemoteProtocolError):
        decode_fact(node_pb2.NodeFact(**{**good, **changes}).SerializeToString())


@pytest.mark.parametrize("code", ["", "Session Lost", "é" * 3, "x" * 65, "../etc"])
def test_failures_with_impossible_codes_are_refused(code: str) -> None:
    wire = stage_pb2.RunReply(failure=stage_pb2.Failure(node_id=NODE_IDS[0], code=code))
    with pytest.raises(RemoteProtocolError):
        decode_run_reply(wire.SerializeToString())


def test_many_empty_submessages_are_refused_unparsed() -> None:
    """Two bytes each on the wire, fifty in memory: a parser would multiply what a stranger sends."""
    n = 3 << 20
    for tag, decode in (
        (b"\x1a\x00", decode_result),
        (b"\x12\x00", decode_exchange_request),
        (b"\x0a\x00", decode_exchange_reply),
    ):
        with pytest.raises(RemoteProtocolError, match="over its limit"):
            decode(tag * n)
    body = b"\x32\x00" * n
    with pytest.raises(RemoteProtocolError, match="over its limit"):
        decode_run_request(b"\x12" + varint(len(body)) + body)


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += struct.pack("B", value % 128 + 128)
        value //= 128
    return out + struct.pack("B", value)


@pytest.mark.parametrize("host", ["", "a b", "victim.example", "127.0.0.1:80", "[::1]", "1.2.3"])
def test_a_dial_back_names_an_ip_address_and_nothing_else(host: str) -> None:
    with pytest.raises(RemoteProtocolError, match="no IP address"):
        decode_dial_back_reply(encode_dial_back_reply(host, ""))
    assert decode_dial_back_reply(encode_dial_back_reply("fe80::1%eth0", "")) == ("fe80::1", "")
