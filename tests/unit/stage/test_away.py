"""Batches that wait for something outside: others are computed meanwhile, and nobody waits for nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from node.stage.scheduler import BatchConfig, ComputeThread, Slice
from swarm.errors import ExpertUnavailable, SessionLost

CONFIG = BatchConfig(max_rows=64, prompt_rows=16)


class Waiting:
    """A computation that is away once: `away` by session, `log` of what was computed when."""

    def __init__(self) -> None:
        self.away: dict[str, Future[None]] = {}
        self.log: list[str] = []
        self._changed = threading.Condition()

    def compute(self, slices: list[Slice]) -> Iterator[Future[None]]:
        names = "".join(sorted(str(part.job.session) for part in slices))
        future: Future[None] = Future()
        with self._changed:
            self.away |= {str(part.job.session): future for part in slices}
            self.log.append(f"{names} out")
            self._changed.notify_all()
        yield future
        future.result()
        with self._changed:
            self.log.append(f"{names} in")
            self._changed.notify_all()
        for part in slices:
            part.job.answer = names

    async def until(self, word: str) -> None:
        def seen() -> bool:
            with self._changed:
                return self._changed.wait_for(lambda: word in self.log, 30)

        assert await asyncio.to_thread(seen), self.log


def run(thread: ComputeThread, session: str) -> asyncio.Task[object]:
    async def answer() -> object:
        return (await thread.run(session, "g", 1, None)).answer

    return asyncio.create_task(answer())


async def test_another_batch_is_computed_while_one_is_away_and_each_goes_on_when_it_can() -> None:
    work = Waiting()
    thread = ComputeThread(work.compute, CONFIG)
    a = run(thread, "a")
    await work.until("a out")
    b = run(thread, "b")
    await work.until("b out")
    work.away["b"].set_result(None)
    assert await b == "b"
    work.away["a"].set_result(None)
    assert await a == "a"
    thread.close()
    assert work.log == ["a out", "b out", "b in", "a in"]


async def test_two_batches_at_most_and_the_next_steps_of_a_session_wait_for_its_own() -> None:
    work = Waiting()
    thread = ComputeThread(work.compute, CONFIG)
    first = run(thread, "a")
    await work.until("a out")
    second = run(thread, "a")
    b = run(thread, "b")
    await work.until("b out")
    c, d = run(thread, "c"), run(thread, "d")
    away_of_a = work.away["a"]
    work.away["b"].set_result(None)
    assert await b == "b"
    await work.until("cd out")
    assert work.away["a"] is away_of_a
    away_of_a.set_result(None)
    assert await first == "a"
    work.away["c"].set_result(None)
    assert [await c, await d] == ["cd", "cd"]
    while work.away["a"] is away_of_a:
        await asyncio.sleep(0)
    work.away["a"].set_result(None)
    assert await second == "a"
    thread.close()


async def test_what_ends_a_wait_badly_ends_that_batch_alone() -> None:
    work = Waiting()
    thread = ComputeThread(work.compute, CONFIG)
    a = run(thread, "a")
    await work.until("a out")
    b = run(thread, "b")
    await work.until("b out")
    work.away["a"].set_exception(ExpertUnavailable("layer 0 expert 1 has no host"))
    with pytest.raises(ExpertUnavailable):
        await a
    work.away["b"].set_result(None)
    assert await b == "b"
    thread.close()


async def test_closing_ends_what_is_away() -> None:
    work = Waiting()
    thread = ComputeThread(work.compute, CONFIG)
    a = run(thread, "a")
    await work.until("a out")
    await asyncio.to_thread(thread.close)
    with pytest.raises(SessionLost):
        await a
