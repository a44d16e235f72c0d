"""Sessions that take their pages as they grow: who is let in, who is sent away, and that everybody gets to the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from node.model import PAGE, KVCache, PagePool
from node.stage import Stage, StageConfig, StageSession
from node.stage.admission import Admission
from node.weights import PRESETS
from swarm.errors import RemoteProtocolError, SessionLost, StageFull, SwarmError
from swarm.messages import Step
from swarm.terms import NodeId, SessionId, Span

CPU = torch.device("cpu")
ARGS = PRESETS["tiny-mixtral"].args
SPAN = Span(0, 6)
PAGE_BYTES = KVCache.size_bytes_for(ARGS, SPAN, 1, torch.float32)


class Books:
    """An admission over a pool of so many pages, and sessions without a model: what counts is their caches."""

    def __init__(self, n_pages: int, **config: int) -> None:
        self.pool = PagePool(n_pages * PAGE_BYTES)
        self.admission = Admission(
            StageConfig(cache_budget_bytes=n_pages * PAGE_BYTES, **config),
            self.pool,
            lambda session, positions: KVCache.size_bytes_for(ARGS, session.span, positions, torch.float32),
            lambda: 0.001,
        )
        self.n_made = 0

    def open(self, client: str, known: int, most: int) -> StageSession:
        self.n_made += 1
        cache = KVCache(ARGS, SPAN, dtype=torch.float32, device=CPU, max_positions=most, pool=self.pool)
        key = (NodeId(client), SessionId(str(self.n_made)), 0)
        model: Any = None
        session = StageSession(key, 1, SPAN, model, cache, most, 1, known)
        self.admission.admit(session)
        return session

    def grow(self, session: StageSession, n_rows: int) -> None:
        """As the compute thread does. Raises: StageFull when the session itself must go."""
        session.begin(1)
        try:
            while True:
                try:
                    session.cache.prepare(n_rows)
                    break
                except StageFull:
                    self.admission.make_room(session)
            session.cache.advance(n_rows)
        finally:
            session.end()
        self.admission.touch(session, 0)

    def close(self, session: StageSession) -> None:
        self.admission.leave(session)
        session.close()


def test_sessions_are_admitted_by_what_is_likely_not_by_the_most_that_they_may_ask() -> None:
    books = Books(16, max_sessions=64)
    sessions = [books.open(f"client {nth}", 100, 16 * PAGE) for nth in range(7)]  # two pages each: prompt and answer
    with pytest.raises(StageFull, match="try later") as full:
        books.open("one more", 100, 16 * PAGE)
    assert 0 < full.value.retry_after_s <= 10
    books.close(sessions[0])
    books.open("one more", 100, 16 * PAGE)
    assert books.pool.size_bytes == 0, "nothing is taken before the first row"
    with pytest.raises(StageFull, match="fewer tokens"):
        Books(16).open("anybody", 1, 16 * PAGE + 1)


def test_short_answers_let_more_in() -> None:
    books = Books(16, max_sessions=64)
    for _ in range(100):
        session = books.open("earlier", 100, 4 * PAGE)
        books.grow(session, 110)
        books.close(session)
    assert len([books.open(f"client {nth}", 100, 4 * PAGE) for nth in range(14)]) == 14


def test_one_client_leaves_a_quarter_and_what_it_gives_back_goes_to_the_other() -> None:
    books = Books(1000, max_sessions=16)
    flood = [books.open("flood", 10, 100) for _ in range(12)]
    with pytest.raises(StageFull, match="12 of them yours"):
        books.open("flood", 10, 100)
    light = [books.open("light", 10, 100) for _ in range(4)]
    with pytest.raises(StageFull):
        books.open("light", 10, 100)
    books.close(flood.pop())
    with pytest.raises(StageFull):
        books.open("flood", 10, 100)
    light.append(books.open("light", 10, 100))


def test_prompts_that_wait_are_bounded_in_tokens() -> None:
    books = Books(1000, max_waiting_rows=1000)
    long = books.open("flood", 5000, 6000)
    with pytest.raises(StageFull, match="5000 tokens of prompts wait") as full:
        books.open("other", 1, 100)
    assert full.value.retry_after_s == pytest.approx(5.0)
    books.grow(long, 4500)
    books.open("other", 400, 1000)
    for nth in range(3):
        with pytest.raises(StageFull, match="900 tokens"):
            books.open(f"late {nth}", 200, 1000)
    assert books.admission.room_for(PAGE_BYTES) > 0
    with pytest.raises(StageFull, match="900 tokens"):
        books.admission.promise(long, 5200)


def test_one_that_stands_still_goes_before_anybody_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    books = Books(4)
    idle = books.open("idle", 10, 3 * PAGE)
    books.grow(idle, 3 * PAGE)
    with pytest.raises(StageFull):
        books.open("other", 100, 2 * PAGE)
    monkeypatch.setattr("node.stage.shares.YIELDING_IDLE_S", 0.0)
    told: list[SwarmError] = []
    idle.on_evicted(idle.epoch, told.append)
    books.open("other", 100, 2 * PAGE)
    assert isinstance(told[0], StageFull) and "stood still" in told[0].message
    with pytest.raises(StageFull, match="stood still"):
        idle.check_open(1)
    assert books.pool.held_bytes == 0


def test_nobody_is_sent_away_for_one_who_is_refused_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.stage.shares.YIELDING_IDLE_S", 1e-9)
    books = Books(8, max_waiting_rows=1000)
    idle = books.open("idle", 10, 2 * PAGE)
    books.grow(idle, 20)
    busy = books.open("busy", 3 * PAGE, 4 * PAGE)
    books.admission.touch(busy, 1)
    with pytest.raises(StageFull, match="tokens of prompts wait"):
        books.open("other", 900, 1000)
    books.grow(busy, 3 * PAGE)
    with pytest.raises(StageFull, match="bytes of cache"):
        books.open("other", 900, 8 * PAGE)
    assert not idle.was_evicted
    books.open("other", PAGE, 2 * PAGE)
    assert idle.was_evicted and not busy.was_evicted


def test_orphans_keep_nobody_out_and_give_way_first() -> None:
    books = Books(8, max_sessions=1)
    orphan = books.open("gone", 10, 4 * PAGE)
    books.grow(orphan, 4 * PAGE)
    orphan.orphaned = True
    assert books.admission.room_for(PAGE_BYTES) == 1
    old = books.open("here", 6 * PAGE, 7 * PAGE)
    with pytest.raises(StageFull):
        books.open("another", 1, 1)
    books.grow(old, 4 * PAGE)
    assert not orphan.was_evicted, "there was room beside it"
    books.grow(old, 3 * PAGE)
    assert orphan.was_evicted and len(books.admission) == 1


def test_one_that_another_batch_computes_keeps_its_pages() -> None:
    books = Books(8)
    old, other, young = (books.open(client, 10, 8 * PAGE) for client in "abc")
    for session in (old, other, young):
        books.grow(session, 2 * PAGE)
    young.begin(1)
    books.grow(old, 3 * PAGE)
    assert other.was_evicted and not young.was_evicted
    with pytest.raises(StageFull):
        books.grow(old, 2 * PAGE)
    young.end()
    books.grow(old, 2 * PAGE)
    assert young.was_evicted


@settings(max_examples=60)
@given(
    wishes=st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(1, 3 * PAGE), st.integers(1, 6 * PAGE)), min_size=1, max_size=12
    ),
    order=st.randoms(use_true_random=False),
)
def test_everybody_gets_to_the_end_within_the_budget_and_the_oldest_without_interruption(
    wishes: list[tuple[str, int, int]], order: Any
) -> None:
    """Clients open, are refused, grow in any order, are sent away, and come back with what they had."""
    books = Books(10, max_sessions=6)
    left = {nth: (client, known, known + more) for nth, (client, known, more) in enumerate(wishes)}
    had = {nth: known for nth, (_, known, _) in left.items()}
    running: dict[int, StageSession] = {}
    for _ in range(2000):
        if not left:
            break
        nth = order.choice(sorted(left))
        client, _, most = left[nth]
        session = running.get(nth)
        try:
            if session is None:
                running[nth] = books.open(client, had[nth], most)
                continue
            oldest = min(running.values(), key=lambda one: books.admission._places[one.key].nth)
            books.grow(session, min(most - session.cache.length, max(60, had[nth] - session.cache.length)))
            assert not oldest.was_evicted
        except StageFull:
            if session is not None:
                books.close(session)
        running = {n: one for n, one in running.items() if not one.closed}
        if session is not None and not session.closed:
            had[nth] = max(had[nth], session.cache.length)
            if session.cache.length == most:
                books.close(session)
                del left[nth], running[nth]
        assert books.pool.size_bytes <= 10 * PAGE_BYTES
        assert len(books.admission) == len(running)
    assert not left


@pytest.fixture
def stage(release: Callable[..., Path], load_span: Callable[..., Any]) -> Any:
    model = load_span(release("tiny-mixtral"), SPAN)
    stages: list[Stage] = []

    def make(**config: Any) -> Stage:
        stages.append(Stage(ARGS, {SPAN: model}, StageConfig(**config), CPU))
        return stages[-1]

    yield make
    for one in stages:
        one.shut_down()


def prompt(n: int) -> tuple[int, ...]:
    return tuple((31 * i + 7) % 500 for i in range(n))


async def feed(stage: Stage, session: StageSession, n: int) -> Any:
    """The next n ids, the last one's logits."""
    position = session.cache.length
    ids = prompt(position + n)[position:]
    for first in range(0, n, 256):
        chunk = ids[first : first + 256]
        is_last = first + len(chunk) == n
        output = await stage.step(session, Step(1, position + first, chunk, int(is_last)))
    return output.payload


async def test_a_session_that_outgrows_the_cache_sends_the_youngest_away_and_is_not_changed_by_it(stage: Any) -> None:
    alone = stage(cache_budget_bytes=64 * PAGE_BYTES)
    expected = await feed(alone, alone.open((NodeId("a"), SessionId("1"), 0), 1, SPAN, 6 * PAGE, 4), 5 * PAGE)
    full = stage(cache_budget_bytes=6 * PAGE_BYTES)
    old = full.open((NodeId("a"), SessionId("1"), 0), 1, SPAN, 6 * PAGE, 4)
    young = full.open((NodeId("b"), SessionId("2"), 0), 1, SPAN, 6 * PAGE, 4)
    told: list[SwarmError] = []
    young.on_evicted(young.epoch, told.append)
    await feed(full, old, 2 * PAGE)
    await feed(full, young, 3 * PAGE)
    assert await feed(full, old, 3 * PAGE) == expected
    assert isinstance(told[0], StageFull) and told[0].retry_after_s > 0
    with pytest.raises(StageFull, match="older sessions need it"):
        await feed(full, young, 1)
    assert full.n_sessions == 1 and full.cache_bytes <= 6 * PAGE_BYTES


async def test_one_of_the_same_batch_is_sent_away_and_the_others_are_computed(stage: Any) -> None:
    full = stage(cache_budget_bytes=4 * PAGE_BYTES)
    old, young = (full.open((NodeId(c), SessionId(c), 0), 1, SPAN, 4 * PAGE, 4) for c in "ab")
    await feed(full, old, 2 * PAGE)
    await feed(full, young, 2 * PAGE)
    running = asyncio.gather(feed(full, young, 1), feed(full, old, 1), return_exceptions=True)
    of_young, of_old = await running
    assert isinstance(of_young, StageFull)
    assert len(of_old) == 1
    assert old.cache.length == 2 * PAGE + 1


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate")])
async def test_a_machine_without_memory_is_a_full_node(
    stage: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    one = stage()
    session = one.open((NodeId("a"), SessionId("1"), 0), 1, SPAN, 64, 4)

    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(session.model, "batch_steps", fail)
        with pytest.raises(StageFull, match="out of memory") as caught:
            await feed(one, session, 4)
        assert caught.value.retry_after_s > 0
        patch.setattr(session.model, "batch_steps", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await feed(one, session, 4)
    assert len(await feed(one, session, 4)) == 1


async def test_logits_of_many_rows_are_made_a_few_at_a_time_and_are_the_same(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = stage()

    async def ask() -> tuple[Any, ...]:
        sessions = [one.open((NodeId("a"), SessionId(name), 0), 1, SPAN, 64, n) for name, n in (("x", 4), ("y", 2))]
        outputs = await asyncio.gather(*(one.step(session, Step(1, 0, prompt(20), 9)) for session in sessions))
        for session in sessions:
            one.close(session)
        return tuple(output.payload for output in outputs)

    whole = await ask()
    assert [len(rows) for rows in whole] == [9, 9]
    sizes: list[int] = []
    model = one._models[SPAN]
    logits = model.logits
    monkeypatch.setattr(model, "logits", lambda h: sizes.append(len(h)) or logits(h))
    monkeypatch.setattr("node.stage.compute.LOGIT_ROWS", 4)
    split = await ask()
    assert max(sizes) <= 4 and sum(sizes) == 18
    for rows, others in zip(whole, split, strict=True):
        assert [row.ids for row in rows] == [row.ids for row in others]
        for row, other in zip(rows, others, strict=True):
            assert row.logits == pytest.approx(other.logits, abs=1e-5)


async def test_clients_are_told_to_go_on_elsewhere(stage: Any) -> None:
    one = stage()
    session = one.open((NodeId("a"), SessionId("1"), 0), 1, SPAN, 64, 4)
    told: list[SwarmError] = []
    session.on_evicted(session.epoch, told.append)
    overtaken: list[SwarmError] = []
    session.on_evicted(session.epoch - 1, overtaken.append)
    one.hand_over(StageFull("this node is leaving", retry_after_s=3.0))
    assert [why.message for why in told] == ["this node is leaving"] and one.n_sessions == 0
    assert not overtaken, "the notice is the newest epoch's"
    session.on_evicted(session.epoch, told.append)
    assert len(told) == 2, "whoever asks later hears it too"
    with pytest.raises(StageFull, match="leaving"):
        await feed(one, session, 4)
    closed = one.open((NodeId("a"), SessionId("2"), 0), 1, SPAN, 64, 4)
    one.close(closed)
    with pytest.raises(SessionLost):
        await feed(one, closed, 4)
    with pytest.raises(RemoteProtocolError):
        one.open((NodeId("a"), SessionId("3"), 0), 1, Span(2, 9), 64, 4)
