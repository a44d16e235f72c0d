"""A node that nobody can dial: it finds that out, keeps a place at a relay, and serves through it.

On loopback an address where nobody answers stands in for a NAT; tests/flows/test_nat.py has a real one.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from swarm.facts import Reachability
from swarm.sampling import SamplingParams
from swarm.terms import Address, id_tag

GREEDY = SamplingParams(max_tokens=8, temperature=0.0, ignore_eos=True)


@pytest.fixture
def nowhere() -> Iterator[Address]:
    """An address of this machine that takes no connection: bound, and not listened on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield Address("127.0.0.1", taken.getsockname()[1])


async def test_it_serves_within_thirty_seconds_and_moves_when_its_relay_is_lost(
    release: Callable[..., Path], local_swarm: Callable[[Path], Any], nowhere: Address
) -> None:
    swarm = local_swarm(release("tiny-mixtral"))
    await swarm.publish()
    relays = await asyncio.gather(swarm.start("0:2"), swarm.start("0:2"))
    at = [Address.parse(str((await node.event("ready"))["address"])) for node in relays]
    began_s = time.monotonic()
    hidden = await swarm.start("2:6", advertise=nowhere, peers=tuple(at))
    found = await hidden.event("reach")
    address = Address.parse(str(found["address"]))
    assert found["reachability"] == "unreachable" and str(nowhere) in str(found["problem"])
    assert address.target and address.relay in at

    async with swarm.client(peers=[str(peer) for peer in at]) as client:
        before = await client.generate([5, 6, 7], GREEDY)
        assert time.monotonic() - began_s < 30
        assert before.route.hops[1].address == address
        (fact,) = [fact for fact in (await client.status()).nodes if fact.address.target]
        assert fact.reachability is Reachability.UNREACHABLE and fact.relay is not None

        async with asyncio.timeout(30):  # facts are signed anew every few seconds, and tell round trips then
            while not any(tag == id_tag(fact.node_id) for n in (await client.status()).nodes for tag, _ in n.rtts):
                await asyncio.sleep(0.05)

        await relays[at.index(address.relay)].kill()
        async with asyncio.timeout(30):
            while (moved := Address.parse(str(hidden.events["reach"][-1]["address"]))).relay == address.relay:
                await asyncio.sleep(0.05)
        after = await client.generate([5, 6, 7], GREEDY)
    assert after.route.hops[1].address == moved
    assert after.ids == before.ids
