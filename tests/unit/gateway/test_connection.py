"""A reader who takes nothing holds no place for ever, whichever message of the answer it is that he leaves lying."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from swarm.gateway import connection
from swarm.gateway.bodies import ClientGone
from swarm.gateway.connection import send_bytes, send_events


async def two_events() -> AsyncGenerator[bytes, None]:
    yield b"data: 1\n\n"
    yield b"data: 2\n\n"


def taking(n_messages: int) -> Any:
    """A reader who takes so many messages and then no more, while his connection stays open."""
    n_taken = 0

    async def send(message: dict[str, Any]) -> None:
        nonlocal n_taken
        n_taken += 1
        if n_taken > n_messages:
            await asyncio.Event().wait()

    return send


@pytest.mark.parametrize("n_messages", range(4))
async def test_a_stream_is_given_up_at_any_of_its_messages(n_messages: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "SEND_TIMEOUT_S", 0.02)
    async with asyncio.timeout(5):
        with pytest.raises(ClientGone):
            await send_events(taking(n_messages), two_events())


@pytest.mark.parametrize("n_messages", range(2))
async def test_so_is_a_whole_answer(n_messages: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "SEND_TIMEOUT_S", 0.02)
    async with asyncio.timeout(5):
        with pytest.raises(ClientGone):
            await send_bytes(taking(n_messages), 200, b"{}")


async def test_a_reader_who_takes_all_gets_all() -> None:
    async with asyncio.timeout(5):
        await send_events(taking(4), two_events())
        await send_bytes(taking(2), 200, b"{}")
