"""Discovery over ports that answer from memory: who is asked, what is believed, what is passed on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from swarm.discovery import Discovery, DiscoveryConfig, sign_fact
from swarm.errors import NodeUnreachable
from swarm.facts import Answer, Known, NodeFact, NodeState, Reachability, SignedFact
from swarm.identity import NodeKey
from swarm.terms import Address, Infohash, Profile, Span, id_tag

RELEASE = Infohash("ab" * 20)


@dataclass
class World:
    """Nodes by address, each with the facts that it passes on; and a DHT that names `announced`."""

    nodes: dict[Address, tuple[NodeKey, list[SignedFact]]] = field(default_factory=dict)
    announced: set[Address] = field(default_factory=set)
    asked: list[Address] = field(default_factory=list)
    pushed: list[SignedFact] = field(default_factory=list)
    given: list[SignedFact] = field(default_factory=list)
    told_ports: list[int] = field(default_factory=list)
    most_given: int = 1000

    def add(self, address: str, knows: Sequence[SignedFact] = ()) -> SignedFact:
        key, where = NodeKey.generate(), Address.parse(address)
        own = sign_fact(key, fact(key, where))
        self.nodes[where] = (key, [own, *knows])
        return own

    name = "DHT"

    async def exchange(
        self, address: Address, release: Infohash, facts: Sequence[SignedFact], known: Known, timeout_s: float
    ) -> Answer:
        self.asked.append(address)
        self.pushed.extend(facts)
        if address not in self.nodes:
            raise NodeUnreachable(f"nobody at {address}")
        key, facts_here = self.nodes[address]
        lacking = [signed for signed in facts_here if known.lacks(signed.fact)]
        self.given.extend(lacking[: self.most_given])
        return Answer(key.node_id, lacking[: self.most_given], len(lacking) > self.most_given, 0.125)

    async def announce(self, key: bytes, port: int) -> bool:
        self.told_ports.append(port)
        return True

    async def close(self) -> None:
        raise NotImplementedError

    async def look_up(self, key: bytes, timeout_s: float) -> set[Address]:
        return set(self.announced)


def fact(key: NodeKey, address: Address) -> NodeFact:
    return NodeFact(
        node_id=key.node_id,
        release=RELEASE,
        address=address,
        seq=1,
        issued_at_s=time.time(),
        ttl_s=60.0,
        state=NodeState.SERVING,
        spans=(Span(0, 4),),
        profile=Profile("fp32"),
        n_layers=4,
        free_sessions=1,
    )


def discovery(world: World, *, peers: Sequence[str] = (), config: DiscoveryConfig | None = None) -> Discovery:
    static = [Address.parse(peer) for peer in peers]
    return Discovery(RELEASE, world, config or DiscoveryConfig(), rendezvous=[world], static_peers=static)


def found(d: Discovery) -> list[str]:
    return sorted(str(node.address) for node in d.nodes())


async def test_one_peer_leads_to_all_that_it_knows_and_these_are_asked_too() -> None:
    world = World()
    third = world.add("198.51.100.3:1")
    second = world.add("198.51.100.2:1", [third])
    world.add("198.51.100.1:1", [second])
    d = discovery(world, peers=["198.51.100.1:1"])
    await d.refresh()
    assert found(d) == ["198.51.100.1:1", "198.51.100.2:1", "198.51.100.3:1"]


async def test_many_who_want_a_round_at_once_share_one() -> None:
    world = World()
    world.add("198.51.100.1:1")
    d = discovery(world, peers=["198.51.100.1:1"])
    await asyncio.gather(*(d.refresh() for _ in range(50)))
    assert len(world.asked) == 1
    await d.refresh()
    assert len(world.asked) == 2, "and the next one asks anew"


async def test_a_loopback_address_from_another_machine_is_not_believed() -> None:
    world = World()
    local = world.add("127.0.0.1:5")
    world.add("198.51.100.1:1", [local])
    d = discovery(world, peers=["198.51.100.1:1"])
    await d.refresh()
    assert found(d) == ["198.51.100.1:1"]
    d = discovery(world, peers=["127.0.0.1:5"])
    await d.refresh()
    assert found(d) == ["127.0.0.1:5"]


async def test_a_flooded_dht_makes_nobody_dial_a_crowd() -> None:
    world = World(announced={Address(f"198.51.100.{i}", 1) for i in range(200)})
    d = discovery(world, config=replace(DiscoveryConfig(), max_asked_per_round=5))
    await d.refresh()
    assert len(world.asked) == 5
    assert "nobody at" in d.describe_attempts()


async def test_a_known_node_that_cannot_be_reached_is_hidden_until_it_speaks() -> None:
    world = World()
    world.add("198.51.100.1:1")
    d = discovery(world, peers=["198.51.100.9:1"])
    (key, (signed, *_)) = world.nodes[Address.parse("198.51.100.1:1")]
    await d.receive([signed])
    assert found(d) == ["198.51.100.1:1"]
    del world.nodes[signed.fact.address]
    await d.refresh()
    assert found(d) == []
    await d.receive([sign_fact(key, replace(signed.fact, seq=2))])
    assert found(d) == ["198.51.100.1:1"]


async def test_a_guest_pushes_nothing_of_its_own() -> None:
    world = World()
    world.add("198.51.100.1:1")
    d = discovery(world, peers=["198.51.100.1:1"])
    await d.refresh()
    assert [s.fact.address for s in world.pushed] == []


def many(n: int) -> list[SignedFact]:
    keys = [NodeKey.generate() for _ in range(n)]
    return [sign_fact(key, fact(key, Address("198.51.100.77", 1 + i))) for i, key in enumerate(keys)]


async def test_what_is_known_is_not_sent_again() -> None:
    world = World()
    world.add("198.51.100.1:1", many(20))
    d = discovery(world, peers=["198.51.100.1:1"], config=replace(DiscoveryConfig(), max_asked_per_round=0))
    await d.refresh()
    assert len(d.nodes()) == len(world.given) == 21
    await d.refresh()
    assert len(world.given) == 21


async def test_a_table_that_does_not_fit_one_answer_or_one_request_comes_in_parts() -> None:
    world = World(most_given=7)
    world.add("198.51.100.1:1", many(60))
    small = replace(DiscoveryConfig(), max_known=10, max_asked_per_round=0)
    d = discovery(world, peers=["198.51.100.1:1"], config=small)
    await d.refresh()
    assert len(d.nodes()) == 61
    assert len(world.given) == 61, "no fact was sent twice"
    assert len(world.asked) < small.max_answers


async def test_a_node_answers_with_what_the_asker_lacks() -> None:
    d = discovery(World())
    facts = many(4)
    await d.receive(facts)
    newer = facts[0].fact.seq - 1
    seqs = {id_tag(s.fact.node_id): s.fact.seq for s in facts[1:]} | {id_tag(facts[0].fact.node_id): newer}
    given, more = await d.receive((), Known(seqs=seqs))
    assert ([s.fact.node_id for s in given], more) == ([facts[0].fact.node_id], False)
    d.config = replace(d.config, max_given=3)
    given, more = await d.receive(())
    assert (len(given), more) == (3, True)


async def test_round_trips_are_noted_and_the_nearest_ones_stated() -> None:
    world = World()
    own = world.add("198.51.100.1:1")
    d = discovery(world, peers=["198.51.100.1:1"])
    await d.refresh()
    assert d.rtts.rtts_s() == {own.fact.node_id: 0.125}
    assert d.nearest(16) == ((id_tag(own.fact.node_id), 0.125),)


async def until_told(world: World, d: Discovery, n: int) -> None:
    running = asyncio.create_task(d.run())
    try:
        async with asyncio.timeout(10):
            while len(world.asked) < n:
                await asyncio.sleep(0.005)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_only_who_can_be_dialled_is_announced() -> None:
    key = NodeKey.generate()
    direct = fact(key, Address("198.51.100.9", 7))
    unreachable = replace(direct, reachability=Reachability.UNREACHABLE)
    relayed = replace(direct, address=Address("198.51.100.1", 1, key.node_id), relay=key.node_id)
    for own, told in ((direct, [7]), (unreachable, []), (relayed, [])):
        world = World()
        signed = sign_fact(key, own)
        peers = [Address.parse("198.51.100.1:1")]
        d = Discovery(
            RELEASE, world, DiscoveryConfig(), rendezvous=[world], static_peers=peers, own=lambda signed=signed: signed
        )
        await until_told(world, d, 2)
        assert world.told_ports == told


@dataclass
class Slow:
    """A meeting place that nobody answers in."""

    name: str = "slow"
    cancelled: bool = False

    async def announce(self, key: bytes, port: int) -> bool:
        return False

    async def look_up(self, key: bytes, timeout_s: float) -> set[Address]:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        raise AssertionError

    async def close(self) -> None:
        raise NotImplementedError


async def test_a_slow_meeting_place_is_not_waited_for_once_another_has_named_somebody() -> None:
    world, slow = World(), Slow()
    world.add("198.51.100.1:1")
    world.announced = {Address("198.51.100.1", 1)}
    d = Discovery(RELEASE, world, DiscoveryConfig(), rendezvous=[slow, world])
    async with asyncio.timeout(10):
        await d.refresh()
    assert found(d) == ["198.51.100.1:1"] and slow.cancelled
    assert d.outcomes["DHT"] == "1 address"


async def test_in_a_large_swarm_a_word_holds_longer_but_not_for_ever() -> None:
    few = replace(DiscoveryConfig(), full_rate_nodes=4)
    d = discovery(World(), config=few)
    assert d.fact_ttl_s == few.fact_ttl_s
    await d.receive(many(8))
    assert d.fact_ttl_s == 2 * few.fact_ttl_s
    await d.receive(many(80))
    assert d.fact_ttl_s == 600.0
