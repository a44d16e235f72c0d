"""Nodes that name themselves by multicast DNS are heard by those who look for their release, and only by those."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from swarm.discovery import LanRendezvous
from swarm.discovery.lan import MAX_HEARD
from swarm.terms import Address

KEY, OTHER_KEY = bytes(range(20)), bytes(20)


@pytest.fixture
async def places() -> AsyncIterator[list[LanRendezvous]]:
    """Three participants on the loopback interface."""
    made = [LanRendezvous(["127.0.0.1"]) for _ in range(3)]
    yield made
    await asyncio.gather(*(place.close() for place in made))


async def heard(place: LanRendezvous, key: bytes, n: int) -> set[Address]:
    found: set[Address] = set()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(10):
            while len(found) != n:
                found = await place.look_up(key, 1.0)
    return found


async def test_who_announces_is_heard_and_who_leaves_is_not(places: list[LanRendezvous]) -> None:
    first, second, client = places
    if not await first.announce(KEY, 7001):
        pytest.skip("this machine's loopback takes no multicast")
    assert await second.announce(KEY, 7002)
    assert await heard(client, KEY, 2) == {Address("127.0.0.1", 7001), Address("127.0.0.1", 7002)}
    assert await heard(first, KEY, 1) == {Address("127.0.0.1", 7002)}, "nobody hears itself"
    assert await client.look_up(OTHER_KEY, 0.5) == set()
    await second.close()
    assert await heard(client, KEY, 1) == {Address("127.0.0.1", 7001)}


def test_a_record_names_nobody_outside_the_local_network() -> None:
    place = LanRendezvous(["127.0.0.1"])
    outside = [Address("203.0.113.9", 7000), Address("192.168.255.254", 22), Address("2001:db8::1", 7000)]
    place._hear("one", KEY.hex(), outside)
    assert place._others_of(KEY.hex()) == set()
    place._hear("two", KEY.hex(), [*outside, Address("127.0.0.2", 7001)])
    assert place._others_of(KEY.hex()) == {Address("127.0.0.2", 7001)}


def test_many_records_shut_nobody_out_who_speaks_after_them() -> None:
    place = LanRendezvous(["127.0.0.1"])
    for port in range(1, MAX_HEARD + 1):
        place._hear(f"flood {port}", OTHER_KEY.hex(), [Address("127.0.0.1", port)])
    place._hear("honest", KEY.hex(), [Address("127.0.0.1", 7001)])
    assert place._others_of(KEY.hex()) == {Address("127.0.0.1", 7001)}
    assert len(place._others_of(OTHER_KEY.hex())) == MAX_HEARD - 1
