"""The committed protobuf code is what proto/ generates, and each message keeps its bytes from version to version."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from swarm.facts import Hop, Known, NodeFact, NodeState, SignedFact
from swarm.messages import Failure, HopTime, Leave, Open, Opened, Result, Rows, Step, TopLogits
from swarm.terms import Address, Infohash, NodeId, Profile, SessionId, Span
from swarm.wire import (
    decode_accept_opening,
    decode_connect_opening,
    decode_dial_back_reply,
    decode_dial_back_request,
    decode_exchange_reply,
    decode_exchange_request,
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
    encode_fact,
    encode_relay_data,
    encode_reserve_reply,
    encode_result,
    encode_results_request,
    encode_run_reply,
    encode_run_request,
    encode_signed_fact,
)

ROOT = Path(__file__).parents[2]


def test_the_committed_code_is_freshly_generated(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="grpcio-tools comes with the dev extra")
    subprocess.run(
        [ROOT / "scripts" / "generate-wire", tmp_path],
        env={"PYTHON": sys.executable, "PATH": "/usr/bin:/bin"},
        check=True,
        capture_output=True,
        timeout=60,
    )
    fresh = {path.name: path.read_text() for path in (tmp_path / "swarm" / "wire" / "v1").iterdir()}
    committed = {
        path.name: path.read_text()
        for path in (ROOT / "swarm" / "wire" / "v1").iterdir()
        if path.is_file() and path.name != "__init__.py"
    }
    assert sorted(fresh) == sorted(committed)
    for name, text in fresh.items():
        assert text == committed[name], f"{name} is stale; run scripts/generate-wire"


A, B = NodeId("a" * 52), NodeId("25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkena")
RELEASE, SESSION = Infohash("ab" * 20), SessionId("cd" * 16)
TUNNEL = bytes(range(16))
TIMES = (HopTime(A, 0.5, 0.25),)
FACT = NodeFact(
    node_id=A,
    release=RELEASE,
    address=Address("::1", 7001),
    seq=3,
    issued_at_s=1.5e9,
    ttl_s=60.0,
    state=NodeState.SERVING,
    spans=(Span(0, 2), Span(5, 9)),
    profile=Profile("bf16"),
    n_layers=32,
    free_sessions=4,
    layer_time_s=0.125,
    torrent_port=6881,
    needed_bytes=1 << 35,
    fetched_bytes=(1 << 35) + 1,
    version="0.1.0",
)
SIGNED = SignedFact(FACT, encode_fact(FACT), bytes(range(64)))
HOPS = (Hop(A, Address("127.0.0.1", 7000), Span(0, 3)), Hop(B, Address("::1", 7001), Span(3, 9)))
RESULT = Result(7, 9, (TopLogits((5, 2), (1.5, -1.0), 2.0),), TIMES)

A_HEX, B_HEX = A.encode().hex(), B.encode().hex()
TIMES_HEX = f"0a34{A_HEX}150000003f1d0000803e"
FACT_HEX = (
    f"0a34{A_HEX}1214{RELEASE}1a0a5b3a3a315d3a37303031200329000000c00b5ad6413500007042"
    "3802420210024204080510094a046266313650205804650000003e68e1357080808080800178818080808001820105302e312e30"
)
SIGNED_HEX = f"0a9c01{FACT_HEX}1240{bytes(range(64)).hex()}"
GOLDEN = [
    (
        Open(SESSION, 7, RELEASE, A, HOPS, 1, Profile("fp32"), 4096, 64),
        encode_run_request,
        decode_run_request,
        f"0a83020a10{SESSION}10071a14{RELEASE}2234{A_HEX}"
        f"2a4a0a34{A_HEX}120e3132372e302e302e313a373030301a021003"
        f"2a480a34{B_HEX}120a5b3a3a315d3a373030311a0408031009"
        "30013a04667033324080204840",
    ),
    (
        Step(7, 4, (1, 300, 32767), 1, TIMES),
        encode_run_request,
        decode_run_request,
        f"1252080710041a080a0601ac02ffff0128013240{TIMES_HEX}",
    ),
    (
        Step(7, 4, Rows(2, "bf16", bytes(range(8))), 1, TIMES),
        encode_run_request,
        decode_run_request,
        f"125808071004220e080210021a08000102030405060728013240{TIMES_HEX}",
    ),
    (
        Step(7, 4, (1, 300), 1, TIMES, b"\x05\x80"),
        encode_run_request,
        decode_run_request,
        f"1253080710041a050a0301ac0228013240{TIMES_HEX}3a020580",
    ),
    (
        Step(7, 4, Rows(1, "bf16", bytes(range(4))), 1, TIMES, b"\x05\x80"),
        encode_run_request,
        decode_run_request,
        f"125808071004220a080110021a040001020328013240{TIMES_HEX}3a020580",
    ),
    (
        Open(SESSION, 7, RELEASE, A, HOPS, 1, Profile("fp32"), 4096, 64, (bytes(range(16)), bytes(16))),
        encode_run_request,
        decode_run_request,
        f"0aa7020a10{SESSION}10071a14{RELEASE}2234{A_HEX}"
        f"2a4a0a34{A_HEX}120e3132372e302e302e313a373030301a021003"
        f"2a480a34{B_HEX}120a5b3a3a315d3a373030311a0408031009"
        f"30013a0466703332408020484052100001020304050607"
        f"08090a0b0c0d0e0f5210{bytes(16).hex()}",
    ),
    (
        Step(7, 255, Rows(1, "bf16", bytes(range(4))), 1, TIMES, b"", (bytes(range(16)),)),
        encode_run_request,
        decode_run_request,
        f"1267080710ff01220a080110021a040001020328013240{TIMES_HEX}4210{bytes(range(16)).hex()}",
    ),
    (
        Open(SESSION, 7, RELEASE, A, HOPS, 1, Profile("fp32"), 4096, 64, (), 300),
        encode_run_request,
        decode_run_request,
        f"0a86020a10{SESSION}10071a14{RELEASE}2234{A_HEX}"
        f"2a4a0a34{A_HEX}120e3132372e302e302e313a373030301a021003"
        f"2a480a34{B_HEX}120a5b3a3a315d3a373030311a0408031009"
        "30013a0466703332408020484058ac02",
    ),
    (Leave(), encode_run_request, decode_run_request, "1a00"),
    (Opened(7), encode_run_reply, decode_run_reply, "0a020807"),
    (Opened(7, 513, 100), encode_run_reply, decode_run_reply, "0a0708071081041864"),
    (Opened(7, 512), encode_run_reply, decode_run_reply, "0a050807108004"),
    (
        Failure(1, A, "StageFull", "no room", 1.5),
        encode_run_reply,
        decode_run_reply,
        f"125108011234{A_HEX}1a09537461676546756c6c22076e6f20726f6f6d2d0000c03f",
    ),
    ((SESSION, 7), lambda value: encode_results_request(*value), decode_results_request, f"0a10{SESSION}1007"),
    (RESULT, encode_result, decode_result, f"080710091a130a02050212080000c03f000080bf1d000000402240{TIMES_HEX}"),
    (FACT, encode_fact, decode_fact, FACT_HEX),
    (SIGNED, encode_signed_fact, decode_signed_fact, SIGNED_HEX),
    (
        (RELEASE, (SIGNED,), Known()),
        lambda value: encode_exchange_request(*value[:2]),
        decode_exchange_request,
        f"0a14{RELEASE}12e101{SIGNED_HEX}",
    ),
    (
        (RELEASE, (), Known(1, 2, {1: 300})),
        lambda value: encode_exchange_request(*value),
        decode_exchange_request,
        f"0a14{RELEASE}1a200901000000000000001102000000000000001a0801000000000000002202ac02",
    ),
    (
        ((SIGNED,), False),
        lambda value: encode_exchange_reply(*value),
        decode_exchange_reply,
        f"0ae101{SIGNED_HEX}",
    ),
    (
        replace(FACT, state=NodeState.LEFT, address=Address("::1", 7001, A), relay=B, relay_places=3, rtts=((1, 0.5),)),
        encode_fact,
        decode_fact,
        f"0a34{A_HEX}1214{RELEASE}1a3f{A_HEX}405b3a3a315d3a3730303120{FACT_HEX.partition('3a3730303120')[2]}".replace(
            "3802", "3804"
        )
        + f"fa0134{B_HEX}8002038a020801000000000000009202040000003f",
    ),
    (7000, encode_dial_back_request, decode_dial_back_request, "08d836"),
    (("::1", ""), lambda v: encode_dial_back_reply(*v), decode_dial_back_reply, "0a033a3a311001"),
    (("::1", "no"), lambda v: encode_dial_back_reply(*v), decode_dial_back_reply, "0a033a3a311a026e6f"),
    (TUNNEL, encode_reserve_reply, decode_reserve_reply, f"0a10{TUNNEL.hex()}"),
    (A, encode_connect_opening, decode_connect_opening, f"0a34{A_HEX}"),
    (TUNNEL, encode_accept_opening, decode_accept_opening, f"1210{TUNNEL.hex()}"),
    (b"hi", encode_relay_data, decode_relay_data, "1a026869"),
]


@pytest.mark.parametrize(
    ("value", "encode", "decode", "golden"),
    GOLDEN,
    ids=[type(row[0]).__name__ + str(i) for i, row in enumerate(GOLDEN)],
)
def test_golden_bytes(value: Any, encode: Callable[[Any], bytes], decode: Callable[[bytes], Any], golden: str) -> None:
    """A change here is a new version of the wire, which nodes of the old one cannot read."""
    assert encode(value).hex() == golden
    assert decode(bytes.fromhex(golden)) == value
