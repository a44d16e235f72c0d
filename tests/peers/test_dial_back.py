"""A node dials its caller back, at the host that the call comes from and nowhere else, and not often."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import pytest

from node.server import DialBack
from node.server.dial_back import BURST, MAX_HOSTS
from swarm.client.reach import be_dialled
from swarm.discovery import sign_fact
from swarm.errors import RemoteProtocolError, StageFull
from swarm.facts import NodeFact, NodeState, Reachability, SignedFact
from swarm.identity import NodeKey
from swarm.terms import Address, Infohash, NodeId, Profile

WAIT_S = 5.0


def own_fact(key: NodeKey, address: Address) -> SignedFact:
    release = Infohash("ab" * 20)
    relay = key.node_id if address.target else None
    fact = NodeFact(
        key.node_id, release, address, 1, time.time(), 60.0, NodeState.SERVING, (), Profile("bf16"), 4, relay=relay
    )
    return sign_fact(key, fact)


@dataclass
class Helpful:
    """A node that dials back. address: where it says that it is."""

    dialer: Any
    address: Address = Address("127.0.0.1", 1)  # noqa: RUF009  frozen

    def __post_init__(self) -> None:
        self.key = NodeKey.generate()
        self.dial = DialBack(self.dialer, lambda: own_fact(self.key, self.address)).dial

    async def dial_back(self, address: Address, caller: NodeId, /) -> str:
        return await self.dial(address, caller)


async def test_who_answers_is_reached_and_who_does_not_is_told_why(world: Any) -> None:
    me, other = NodeKey.generate(), NodeKey.generate()
    _, mine = await world.serve(key=me)
    _, others = await world.serve(key=other)
    _, helpful = await world.serve(node=Helpful(world.dialer()))
    connection = await world.dialer(me).connect(helpful)
    assert await connection.dial_back(mine.port, WAIT_S) == ("127.0.0.1", "")
    host, problem = await connection.dial_back(9, WAIT_S)
    assert host == "127.0.0.1" and "127.0.0.1:9" in problem
    _, problem = await connection.dial_back(others.port, WAIT_S)
    assert "changed hands" in problem, "somebody else's port is not one's own"


async def test_the_answers_of_several_nodes_make_a_verdict(world: Any) -> None:
    me = NodeKey.generate()
    _, mine = await world.serve(key=me)
    addresses = [(await world.serve(node=Helpful(world.dialer())))[1] for _ in range(2)]
    facts = [own_fact(NodeKey.generate(), address).fact for address in addresses]
    silent = own_fact(NodeKey.generate(), Address("127.0.0.1", 9)).fact
    verdict = await be_dialled(world.dialer(me), [silent, *facts], mine, "loopback")
    assert (verdict.reachability, verdict.host, verdict.n_answers) == (Reachability.REACHABLE, "127.0.0.1", 2)
    assert (
        await be_dialled(world.dialer(me), facts, replace(mine, port=9), "loopback")
    ).reachability is Reachability.UNREACHABLE
    inside = await be_dialled(world.dialer(me), facts, mine, "wan")
    assert inside.reachability is Reachability.UNKNOWN, "what is seen from inside says nothing of the internet"
    relayed = [replace(fact, address=replace(fact.address, target=fact.node_id)) for fact in facts]
    assert (await be_dialled(world.dialer(me), relayed, mine, "loopback")).n_answers == 0


class NoDialer:
    """Fails the test when anybody is dialled."""

    async def connect(self, address: Address, node_id: NodeId) -> None:
        raise AssertionError(f"{address} was dialled")


async def test_a_call_that_came_through_a_relay_or_a_local_program_makes_nobody_dial_this_machine() -> None:
    """Both look as if they came from 127.0.0.1: behind a relay, any stranger's would be a dial of local services."""
    for address in (Address("203.0.113.5", 7000), Address("127.0.0.1", 7000, NodeKey.generate().node_id)):
        node = Helpful(NoDialer(), address)
        if address.target:
            node.address = Address("127.0.0.1", 7000, node.key.node_id)
        with pytest.raises(RemoteProtocolError):
            await node.dial_back(Address("127.0.0.1", 22), NodeKey.generate().node_id)


class CountingDialer:
    def __init__(self) -> None:
        self.dialled: list[Address] = []

    async def connect(self, address: Address, node_id: NodeId) -> None:
        self.dialled.append(address)


async def test_one_host_is_dialled_a_few_times_and_a_crowd_takes_no_memory() -> None:
    dialer = CountingDialer()
    node = Helpful(dialer, Address("203.0.113.5", 7000))
    caller = NodeKey.generate().node_id
    for _ in range(BURST):
        assert await node.dial_back(Address("203.0.113.9", 7000), caller) == ""
    with pytest.raises(StageFull, match="often enough"):
        await node.dial_back(Address("203.0.113.9", 7001), NodeKey.generate().node_id)
    assert len(dialer.dialled) == BURST
    for i in range(2 * MAX_HOSTS):
        await node.dial_back(Address(f"203.0.{i // 256}.{i % 256}", 7000), caller)
    assert len(node.dial.__self__._allowance) <= MAX_HOSTS  # type: ignore[attr-defined]
