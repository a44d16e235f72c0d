"""What is held of requests has a bound, and reading a large one holds up nobody."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from swarm.errors import TooManyRequests
from swarm.gateway.reading import THREAD_FROM_BYTES, ReadingRoom

FREE = THREAD_FROM_BYTES


@pytest.fixture
def room() -> Iterator[ReadingRoom]:
    made = ReadingRoom(max_bytes=100)
    yield made
    made.close()


def test_what_has_no_room_is_told_to_come_again(room: ReadingRoom) -> None:
    with room.place("alice") as first, room.place("bob") as second:
        first(FREE + 50)
        second(FREE + 20)
        second(20)
        assert room.n_bytes == 90
        with room.place("carol") as third:
            third(FREE)  # a small body is always read
            with pytest.raises(TooManyRequests) as refused:
                third(11)
        with room.place("carol") as third:
            third(FREE + 10)
        assert refused.value.retry_after_s
    assert room.n_bytes == 0


def test_one_caller_leaves_room_for_others(room: ReadingRoom) -> None:
    with room.place("alice") as first, room.place("alice") as second:
        first(FREE + 30)
        with pytest.raises(TooManyRequests):
            second(FREE + 30)
        with room.place("bob") as third:
            third(FREE + 50)
    assert room.n_bytes == 0


async def test_large_bodies_are_read_one_at_a_time_beside_the_loop(room: ReadingRoom) -> None:
    may_end = threading.Event()
    n_at_work, most_at_work = 0, 0

    def reading() -> int:
        nonlocal n_at_work, most_at_work
        n_at_work += 1
        most_at_work = max(most_at_work, n_at_work)
        assert may_end.wait(20)
        n_at_work -= 1
        return threading.get_ident()

    tasks = [asyncio.create_task(room.read(THREAD_FROM_BYTES, reading)) for _ in range(3)]
    assert await room.read(10, threading.get_ident) == threading.get_ident()  # a small one, while they are read
    may_end.set()
    async with asyncio.timeout(20):
        idents = await asyncio.gather(*tasks)
    assert set(idents).isdisjoint({threading.get_ident()}) and most_at_work == 1
