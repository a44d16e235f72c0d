"""Discovery over ports that answer from memory: who is asked, what is believed, what is passed on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from swarm.discovery import Discovery, DiscoveryConfig, sign_fact
from swarm.errors import NodeUnreachable
from swarm.facts import NodeFact, NodeState, SignedFact
from swarm.identity import NodeKey
from swarm.terms import Address, Infohash, NodeId, Profile, Span

RELEASE = Infohash("ab" * 20)


@dataclass
class World:
    """Nodes by address, each with the facts that it passes on; and a DHT that names `announced`."""

    nodes: dict[Address, tuple[NodeKey, list[SignedFact]]] = field(default_factory=dict)
    announced: set[Address] = field(default_factory=set)
    asked: list[Address] = field(default_factory=list)
    pushed: list[SignedFact] = field(default_factory=list)

    def add(self, address: str, knows: Sequence[SignedFact] = ()) -> SignedFact:
        key, where = NodeKey.generate(), Address.parse(address)
        own = sign_fact(key, fact(key, where))
        self.nodes[where] = (key, [own, *knows])
        return own

    async def exchange(
        self, address: Address, release: Infohash, facts: Sequence[SignedFact], timeout_s: float
    ) -> tuple[NodeId, Sequence[SignedFact]]:
        self.asked.append(address)
        self.pushed.extend(facts)
        if address not in self.nodes:
            raise NodeUnreachable(f"nobody at {address}")
        key, known = self.nodes[address]
        return key.node_id, known

    async def dht_announce(self, key: bytes, port: int) -> bool:
        return True

    async def dht_look_up(self, key: bytes, timeout_s: float) -> set[Address]:
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
    return Discovery(RELEASE, world, config or DiscoveryConfig(), rendezvous=world, static_peers=static)


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
    d.receive([signed])
    assert found(d) == ["198.51.100.1:1"]
    del world.nodes[signed.fact.address]
    await d.refresh()
    assert found(d) == []
    d.receive([sign_fact(key, replace(signed.fact, seq=2))])
    assert found(d) == ["198.51.100.1:1"]


async def test_a_guest_pushes_nothing_of_its_own() -> None:
    world = World()
    world.add("198.51.100.1:1")
    d = discovery(world, peers=["198.51.100.1:1"])
    await d.refresh()
    assert [s.fact.address for s in world.pushed] == []
