"""Knocking at nodes' ports: answered, closed, silent, and not too often."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from swarm.gateway.reachability import ASK_AGAIN_S, MAX_ASKED_AT_ONCE, Reachability
from swarm.terms import Address


class Listener:
    """A port that counts who comes."""

    def __init__(self) -> None:
        self.n_knocks = 0
        self.address = Address("127.0.0.1", 1)
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._met, "127.0.0.1", 0)
        self.address = Address("127.0.0.1", self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    def _met(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.n_knocks += 1
        writer.transport.abort()


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    made = Listener()
    await made.start()
    yield made
    await made.stop()


def closed_address() -> Address:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return Address("127.0.0.1", found.getsockname()[1])


async def test_an_open_port_has_a_time_and_a_closed_one_none(listener: Listener) -> None:
    reachability = Reachability()
    closed = closed_address()
    nameless = Address("no-such-host.invalid", 1)
    assert reachability.at(listener.address) is None
    await reachability.refresh([listener.address, closed, nameless])
    answered = reachability.at(listener.address)
    assert answered is not None and answered.connect_s is not None and answered.connect_s >= 0
    for address in (closed, nameless):
        silent = reachability.at(address)
        assert silent is not None and silent.connect_s is None


async def test_an_answer_holds_for_a_while_and_is_forgotten_with_its_node(listener: Listener) -> None:
    now_s = 100.0
    reachability = Reachability(clock=lambda: now_s)
    for step_s in (0.0, ASK_AGAIN_S / 2, ASK_AGAIN_S / 2):
        now_s += step_s
        await reachability.refresh([listener.address, listener.address])
        asked = reachability.at(listener.address)
        assert asked is not None and asked.at_s == (100.0 if now_s < 100.0 + ASK_AGAIN_S else now_s)
    await reachability.refresh([])
    assert reachability.at(listener.address) is None


async def test_a_long_list_is_asked_a_part_at_a_time() -> None:
    addresses = [Address("127.0.0.1", port) for port in range(1, 3 * MAX_ASKED_AT_ONCE)]
    reachability = Reachability()
    await reachability.refresh(addresses)
    assert sum(reachability.at(address) is not None for address in addresses) == MAX_ASKED_AT_ONCE
    await reachability.refresh(addresses)
    assert sum(reachability.at(address) is not None for address in addresses) == 2 * MAX_ASKED_AT_ONCE
