"""Strangers who lie to a whole node: each lie is refused by name, nothing of it stays, and the others are served."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from swarm.client.network import NetworkConfig
from swarm.discovery import sign_fact
from swarm.errors import (
    PositionMismatch,
    RemoteProtocolError,
    SessionLost,
    StageFull,
    StaleEpoch,
    SwarmError,
    Unauthenticated,
)
from swarm.facts import Hop, SignedFact
from swarm.identity import Authority, NodeKey, TlsIdentity, issue
from swarm.messages import Failure, Open, Opened, Rows, Step
from swarm.rpc import Dialer, failure_to_error
from swarm.sampling import SamplingParams
from swarm.terms import Address, Infohash, NodeId, Profile, SessionId, Span

PARAMS = SamplingParams(max_tokens=4, temperature=0.0, ignore_eos=True)
PROMPT = [3, 4, 5, 6]
DIM = 64
MAX_SESSIONS = 3


class World:
    """Two honest nodes, an honest client, and a stranger with a key of his own."""

    def __init__(self, swarm: Any, client: Any, stranger: Dialer, key: NodeKey) -> None:
        self.swarm = swarm
        self.client = client
        self.stranger = stranger
        self.key = key
        self.release = Infohash(client.release.infohash)
        self.hops = tuple(
            Hop(
                NodeId(node.events["started"][-1]["node_id"]),
                Address.parse(node.events["ready"][-1]["address"]),
                Span.parse(node.events["ready"][-1]["spans"][0]),
            )
            for node in swarm.nodes
        )

    def opening(self, **changes: Any) -> Open:
        """A good one from the stranger, but for what is changed."""
        good = Open(
            SessionId("ab" * 16), 1, self.release, self.key.node_id, self.hops, 0, Profile("fp32"), 64, 4
        )  # fmt: skip
        return dataclasses.replace(good, **changes)

    def as_first_hop(self, **changes: Any) -> Open:
        """The stranger as hop 0, and the last honest node behind him."""
        hops = (Hop(self.key.node_id, Address("127.0.0.1", 9), Span(0, 3)), self.hops[1])
        return self.opening(hops=hops, hop_idx=1, **changes)

    async def answer(self, opening: Open, *steps: Step) -> SwarmError:
        """The error that the node answers this with; fails when there is none."""
        node = opening.hops[opening.hop_idx] if opening.hop_idx < len(opening.hops) else opening.hops[-1]
        honest = next(hop for hop in self.hops if hop.address == node.address)
        async with asyncio.timeout(20), (await self.stranger.connect(honest.address)).run(opening) as call:
            try:
                async for reply in call.replies():
                    if isinstance(reply, Failure):
                        return failure_to_error(reply)
                    assert isinstance(reply, Opened)
                    for step in steps:
                        await call.send(step)
            except SwarmError as error:
                return error
        raise AssertionError("it was accepted")

    async def serves_others(self) -> None:
        """The honest client gets its tokens, and no session is left on any node."""
        generation = await self.client.generate(PROMPT, PARAMS)
        assert len(generation.ids) == PARAMS.max_tokens
        assert generation.timings.n_replays == 0
        async with asyncio.timeout(20):
            while [n.free_sessions for n in (await self.client.status()).nodes] != [MAX_SESSIONS] * 2:
                await asyncio.sleep(0.05)


@pytest.fixture
async def world(release: Callable[..., Path], local_swarm: Callable[[Path], Any]) -> AsyncIterator[World]:
    swarm = local_swarm(release("tiny-mixtral"))
    await swarm.publish()
    swarm.nodes = await asyncio.gather(*(swarm.start(span, max_sessions=MAX_SESSIONS) for span in ("0:3", "3:6")))
    key = NodeKey.generate()
    peers = [str(node.events["ready"][-1]["address"]) for node in swarm.nodes]
    async with Dialer(issue(key), NetworkConfig.named("loopback").rpc) as stranger, swarm.client(peers=peers) as client:
        yield World(swarm, client, stranger, key)


def rows(n_rows: int, n_bytes: int, dtype: str = "fp32") -> Rows:
    return Rows(n_rows, dtype, bytes(n_bytes))


async def test_an_open_that_lies_is_refused(world: World) -> None:
    first, last = world.hops
    nobody = NodeKey.generate().node_id
    opening = world.opening
    lies = [
        (opening(hops=(dataclasses.replace(first, node_id=nobody), last)), RemoteProtocolError, "does not name this"),
        (opening(release=Infohash("0" * 40)), RemoteProtocolError, "serves release"),
        (opening(client_id=nobody), RemoteProtocolError, "not the hop before"),
        (opening(hop_idx=1), RemoteProtocolError, "not the hop before"),
        (opening(profile=Profile("bf16")), RemoteProtocolError, "profile"),
        (opening(max_positions=1 << 24), RemoteProtocolError, "the model has 4096"),
        (opening(max_positions=1 << 30), RemoteProtocolError, "not within"),
        (opening(page_hashes=(bytes(16),)), RemoteProtocolError, "1 pages of at most 64 positions"),
        (opening(hops=(first,)), RemoteProtocolError, "do not join up"),
        (
            opening(hops=(dataclasses.replace(first, span=Span(0, 4)), dataclasses.replace(last, span=Span(4, 6)))),
            RemoteProtocolError,
            "not hosted here",
        ),
    ]
    for lie, kind, words in lies:
        error = await world.answer(lie)
        assert type(error) is kind, f"{lie}: {error!r}"
        assert words in error.message
    await world.serves_others()


async def test_steps_of_the_wrong_size_end_their_own_session_only(world: World) -> None:
    token_steps = [
        (Step(1, 0, tuple(range(65)), 1), RemoteProtocolError, "exceed the session's 64"),
        (Step(1, 0, (512,), 1), RemoteProtocolError, "outside of the vocabulary"),
        (Step(1, 5, (1,), 1), PositionMismatch, "0 positions are cached"),
        (Step(1, 5, (1,), 1, (), b"", (bytes(16),)), RemoteProtocolError, "1 hashes where 0 pages"),
        (Step(2, 0, (1,), 1), StaleEpoch, "epoch 2"),
        (Step(1, 0, rows(1, DIM * 4), 1), RemoteProtocolError, "token ids enter the first stage"),
    ]
    for step, kind, words in token_steps:
        error = await world.answer(world.opening(), step)
        assert type(error) is kind, f"{step}: {error!r}"
        assert words in error.message
    row_steps = [
        (Step(1, 0, rows(1, DIM * 4 - 4), 1), "252 came"),
        (Step(1, 0, rows(3, DIM * 4), 1), "wrong length|not a multiple|3 rows|breaks the protocol"),
        (Step(1, 0, rows(1, DIM * 2, "bf16"), 1), "computes in"),
        (Step(1, 0, (1, 2), 1), "hidden state every other"),
    ]
    for step, words in row_steps:
        error = await world.answer(world.as_first_hop(), step)
        assert type(error) is RemoteProtocolError, f"{step}: {error!r}"
        assert any(word in error.message for word in words.split("|")), error.message
    await world.serves_others()


async def test_rows_that_are_no_numbers_reach_no_client(world: World) -> None:
    poison = Rows(1, "fp32", struct.pack("<f", math.nan) * DIM)
    connection = await world.stranger.connect(world.hops[1].address)
    opening = world.as_first_hop()
    async with asyncio.timeout(20), connection.run(opening) as call:
        replies = call.replies()
        assert isinstance(await anext(replies), Opened)
        await call.send(Step(1, 0, poison, 1))
        with pytest.raises((RemoteProtocolError, SessionLost)):
            await anext(connection.results(opening.session_id, 1))
    await world.serves_others()


async def test_the_results_of_a_session_are_its_clients_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.server.outboxes.RESULTS_WAIT_S", 0.2)
    thief_key = NodeKey.generate()
    opening = world.as_first_hop()
    owner = await world.stranger.connect(world.hops[1].address)
    async with (
        asyncio.timeout(20),
        Dialer(issue(thief_key), NetworkConfig.named("loopback").rpc) as thief,
        owner.run(opening) as call,
        (await thief.connect(world.hops[0].address)).run(
            dataclasses.replace(opening, epoch=2, client_id=thief_key.node_id, hop_idx=0, hops=world.hops)
        ) as theft,
    ):
        results = owner.results(opening.session_id, 1)
        assert isinstance(await anext(call.replies()), Opened)
        await call.send(Step(1, 0, rows(1, DIM * 4), 1))
        with pytest.raises(SessionLost, match="no such session of this client"):
            await anext((await thief.connect(world.hops[1].address)).results(opening.session_id, 1))
        assert (await anext(results)).position == 1, "the owner still gets them"
        # Nor does knowing a session's id (every hop does) help to end it with a newer epoch: his is another session.
        assert isinstance(await anext(theft.replies()), Opened)
        await call.send(Step(1, 1, rows(1, DIM * 4), 1))
        assert (await anext(results)).position == 2
    await world.serves_others()


async def test_a_hoarder_of_sessions_delays_others_only_while_he_stays(world: World) -> None:
    connection = await world.stranger.connect(world.hops[1].address)
    calls = [connection.run(world.as_first_hop(session_id=SessionId(f"{i:032x}"))) for i in range(MAX_SESSIONS + 1)]
    answers = [await anext(call.replies()) if i < MAX_SESSIONS else None for i, call in enumerate(calls)]
    assert all(isinstance(answer, Opened) for answer in answers[:MAX_SESSIONS])
    with pytest.raises(StageFull, match="3 of 3 sessions that this node takes are open"):
        await anext(calls[-1].replies())
    generating = asyncio.create_task(world.client.generate(PROMPT, PARAMS))
    await asyncio.wait((generating,), timeout=1.0)
    assert not generating.done(), "it waits for its turn"
    await world.stranger.close()
    async with asyncio.timeout(20):
        assert len((await generating).ids) == PARAMS.max_tokens
    await world.serves_others()


async def test_a_route_through_an_impostor_is_refused_and_the_impostor_named(
    world: World, local_swarm: Callable[[Path], Any]
) -> None:
    """Somebody else listens where the last hop should be: neither the first hop nor a client talks to him."""
    first, last = world.hops
    impostor = await world.swarm.start("3:6", max_sessions=MAX_SESSIONS)
    address = Address.parse(impostor.events["ready"][-1]["address"])
    lie = world.opening(hops=(first, dataclasses.replace(last, address=address)))
    error = await world.answer(lie)
    assert isinstance(error, Unauthenticated), repr(error)
    assert str(address) in error.message
    assert last.node_id[:8] in error.message
    with pytest.raises(Unauthenticated, match="it has changed hands"):
        await world.stranger.connect(address, last.node_id)
    await impostor.stop()
    assert (await world.client.generate(PROMPT, PARAMS)).timings.n_replays <= 1


async def test_a_forged_fact_moves_no_node(world: World) -> None:
    connection = await world.stranger.connect(world.hops[0].address)
    honest = next(
        s for s in (await connection.exchange(world.release, (), 5.0)).facts if s.fact.node_id == world.hops[1].node_id
    )
    moved = dataclasses.replace(honest.fact, address=Address("127.0.0.1", 9), seq=honest.fact.seq + 1_000_000)
    forged = sign_fact(world.key, moved)
    altered = SignedFact(moved, forged.payload, honest.signature)
    known = (await connection.exchange(world.release, (forged, altered), 5.0)).facts
    addresses = {signed.fact.node_id: signed.fact.address for signed in known}
    assert addresses[world.hops[1].node_id] == world.hops[1].address
    with pytest.raises(SwarmError):
        await connection.exchange(Infohash("0" * 40), (), 5.0)
    await world.serves_others()


@contextmanager
def tls_client(address: Address, tls: TlsIdentity | None, folder: Path) -> Iterator[ssl.SSLSocket]:
    """A TLS connection that speaks HTTP/2 and presents this identity, or none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if tls is not None:
        (folder / "identity.pem").write_bytes(tls.certificate_pem + tls.private_key_pem)
        context.load_cert_chain(folder / "identity.pem")
    with socket.create_connection((address.host, address.port), timeout=10) as raw, context.wrap_socket(raw) as wrapped:
        yield wrapped


@pytest.mark.parametrize("presented", ["nothing", "of another swarm"])
async def test_a_node_says_nothing_to_a_client_without_its_certificate(
    world: World, tmp_path: Path, presented: str
) -> None:
    other_swarm = issue(NodeKey.generate(), Authority(b"the secret of another swarm"))
    tls = other_swarm if presented == "of another swarm" else None
    address = world.hops[0].address

    def speak(tls: TlsIdentity | None) -> bytes:
        with tls_client(address, tls, tmp_path) as connection:
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
            return connection.recv(9)

    assert await asyncio.to_thread(speak, issue(NodeKey.generate())), "an honest stranger is answered"
    try:
        answered = await asyncio.to_thread(speak, tls)
    except (ssl.SSLError, ConnectionError):
        answered = b""
    assert answered == b""
    if tls is not None:
        async with Dialer(tls, NetworkConfig.named("loopback").rpc) as dialer:
            with pytest.raises(SwarmError) as caught:
                await dialer.connect(address)
            assert isinstance(caught.value, Unauthenticated), repr(caught.value)
    await world.serves_others()
