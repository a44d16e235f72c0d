"""What a key may use in a minute and at a time, and who is let in next when places are few."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import BadArgument, TooManyRequests
from swarm.gateway.operations.keys import Caller
from swarm.gateway.operations.limits import Limits, LimitsConfig

ALICE, BOB, CAROL = Caller("alice"), Caller("bob"), Caller("carol")


class Request:
    """One request in a task of its own, held until it is told to leave."""

    def __init__(self, limits: Limits, caller: Caller, n_places: int = 1) -> None:
        self.is_in = asyncio.Event()
        self._may_leave = asyncio.Event()
        self.task = asyncio.ensure_future(self._run(limits, caller, n_places))

    async def _run(self, limits: Limits, caller: Caller, n_places: int) -> None:
        limits.arrive(caller)
        async with limits.admit(caller, 1, n_places):
            self.is_in.set()
            await self._may_leave.wait()

    async def leave(self) -> None:
        self._may_leave.set()
        await self.task


async def settled() -> None:
    """Let every task run as far as it can by itself."""
    for _ in range(10):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def requests(limits: Limits, *asked: Caller | tuple[Caller, int]) -> AsyncIterator[list[Request]]:
    """One after another, each a caller's, or (a caller's, for so many answers)."""
    made = []
    for one in asked:
        made.append(Request(limits, *one) if isinstance(one, tuple) else Request(limits, one))
        await settled()
    try:
        yield made
    finally:
        for request in made:
            request.task.cancel()
        await asyncio.gather(*(request.task for request in made), return_exceptions=True)
        assert limits.n_running == limits.n_waiting == 0


async def use(limits: Limits, caller: Caller, n_tokens: int = 1, *, took: int | None = None) -> None:
    limits.arrive(caller)
    async with limits.admit(caller, n_tokens) as admission:
        if took is not None:
            admission.settle(took)


# -- a minute's worth ------------------------------------------------------------------------------------------------


async def test_requests_a_minute_are_counted_by_key_and_come_back_steadily(clock: Any) -> None:
    limits = Limits(LimitsConfig(requests_per_min=3), clock=clock)
    for _ in range(3):
        await use(limits, ALICE)
    with pytest.raises(TooManyRequests, match="3 requests a minute") as refused:
        await use(limits, ALICE)
    assert refused.value.retry_after_s == pytest.approx(20)
    await use(limits, BOB)
    clock.now_s += refused.value.retry_after_s
    await use(limits, ALICE)
    with pytest.raises(TooManyRequests):
        await use(limits, ALICE)
    clock.now_s += 3600
    for _ in range(3):  # an idle hour is worth one minute
        await use(limits, ALICE)
    with pytest.raises(TooManyRequests):
        await use(limits, ALICE)


async def test_tokens_are_set_aside_and_settled_by_what_it_took(clock: Any) -> None:
    limits = Limits(LimitsConfig(tokens_per_min=1000), clock=clock)
    await use(limits, ALICE, 900, took=100)
    await use(limits, ALICE, 900, took=100)
    with pytest.raises(TooManyRequests, match="1000 tokens a minute") as refused:
        await use(limits, ALICE, 900)
    assert refused.value.retry_after_s == pytest.approx(6)
    await use(limits, ALICE, 800, took=1400)  # overdrawn by 600: 36 s pass before anything goes
    with pytest.raises(TooManyRequests) as refused:
        await use(limits, ALICE, 1)
    assert refused.value.retry_after_s == pytest.approx(36.06)


async def test_a_request_of_more_than_a_minutes_worth_waits_for_a_full_minute(clock: Any) -> None:
    limits = Limits(LimitsConfig(tokens_per_min=100), clock=clock)
    await use(limits, ALICE, 10)
    with pytest.raises(TooManyRequests) as refused:
        await use(limits, ALICE, 5000)
    assert refused.value.retry_after_s == pytest.approx(6)
    clock.now_s += 6
    await use(limits, ALICE, 5000)
    with pytest.raises(TooManyRequests) as refused:
        await use(limits, ALICE, 1)
    assert refused.value.retry_after_s == pytest.approx(49.01 * 60)


async def test_settling_twice_charges_once(clock: Any) -> None:
    limits = Limits(LimitsConfig(tokens_per_min=100), clock=clock)
    async with limits.admit(ALICE, 50) as admission:
        admission.settle(80)
        admission.settle(100)
    with pytest.raises(TooManyRequests) as refused:
        await use(limits, ALICE, 1)
    assert refused.value.retry_after_s == pytest.approx(0.6)


async def test_a_request_that_was_not_let_in_costs_nothing(clock: Any) -> None:
    limits = Limits(LimitsConfig(requests_per_min=2, tokens_per_min=100, max_concurrent=1, max_queued=0), clock=clock)
    async with requests(limits, BOB):
        for _ in range(5):
            with pytest.raises(TooManyRequests, match="queue"):
                await use(limits, ALICE, 100)
    await use(limits, ALICE, 100)


async def test_a_token_refusal_does_not_use_up_a_request(clock: Any) -> None:
    limits = Limits(LimitsConfig(requests_per_min=2, tokens_per_min=100), clock=clock)
    await use(limits, ALICE, 100)
    with pytest.raises(TooManyRequests, match="tokens"):
        await use(limits, ALICE, 100)
    clock.now_s += 60
    await use(limits, ALICE, 1)
    await use(limits, ALICE, 1)


async def test_a_request_counts_from_its_arrival_whatever_becomes_of_it(clock: Any) -> None:
    """Reading what it asks for is work: a flood of requests that ask for nonsense, or for too much, ends here."""
    limits = Limits(LimitsConfig(requests_per_min=3, tokens_per_min=100), clock=clock)
    await use(limits, ALICE, 50)
    limits.arrive(ALICE)  # and is found to be no JSON
    with pytest.raises(TooManyRequests, match="tokens"):
        await use(limits, ALICE, 60)
    with pytest.raises(TooManyRequests, match="3 requests a minute"):
        limits.arrive(ALICE)
    limits.arrive(BOB)


async def test_who_has_nothing_left_is_refused_before_anything_is_read(clock: Any) -> None:
    limits = Limits(LimitsConfig(tokens_per_min=100, max_concurrent=1, max_queued=0), clock=clock)
    await use(limits, ALICE, 100)
    with pytest.raises(TooManyRequests, match="100 tokens"):
        limits.arrive(ALICE)
    async with requests(limits, BOB):
        with pytest.raises(TooManyRequests, match="the queue is full"):
            limits.arrive(CAROL)
    limits.arrive(CAROL)


# -- places and the queue --------------------------------------------------------------------------------------------


async def test_what_finds_no_place_waits_and_is_let_in_in_order() -> None:
    limits = Limits(LimitsConfig(max_concurrent=2))
    async with requests(limits, ALICE, ALICE, ALICE, ALICE) as (first, _, third, fourth):
        assert (limits.n_running, limits.n_waiting) == (2, 2)
        await first.leave()
        await settled()
        assert third.is_in.is_set() and not fourth.is_in.is_set()
        assert (limits.n_running, limits.n_waiting) == (2, 1)


async def test_a_request_for_n_answers_takes_n_places() -> None:
    limits = Limits(LimitsConfig(max_concurrent=4))
    async with requests(limits, (ALICE, 3), (BOB, 2), CAROL) as (first, second, third):
        assert first.is_in.is_set() and not second.is_in.is_set() and limits.n_running == 3
        assert not third.is_in.is_set(), "nobody overtakes a request that waits for several places"
        await first.leave()
        await settled()
        assert second.is_in.is_set() and third.is_in.is_set() and limits.n_running == 3


async def test_many_small_requests_do_not_starve_a_large_one() -> None:
    limits = Limits(LimitsConfig(max_concurrent=2))
    async with requests(limits, ALICE, ALICE, (BOB, 2), CAROL, CAROL) as (first, second, large, *small):
        await first.leave()
        await settled()
        assert not any(request.is_in.is_set() for request in (large, *small))
        await second.leave()
        await settled()
        assert large.is_in.is_set() and not any(request.is_in.is_set() for request in small)
        await large.leave()
        await settled()
        assert all(request.is_in.is_set() for request in small)


async def test_a_large_request_that_gives_up_lets_others_in() -> None:
    limits = Limits(LimitsConfig(max_concurrent=2))
    async with requests(limits, ALICE, (BOB, 2), CAROL) as (_, large, small):
        assert not small.is_in.is_set()
        large.task.cancel()
        await settled()
        assert small.is_in.is_set()


async def test_more_answers_than_there_are_places_get_all_of_them() -> None:
    limits = Limits(LimitsConfig(max_concurrent=4, max_concurrent_per_key=3))
    async with requests(limits, (ALICE, 16), BOB, ALICE) as (large, other, more):
        assert large.is_in.is_set() and other.is_in.is_set() and not more.is_in.is_set()
        assert limits.n_running == 4


@given(
    max_concurrent=st.integers(1, 5),
    per_key=st.none() | st.integers(1, 5),
    asked=st.lists(st.tuples(st.sampled_from([ALICE, BOB, CAROL]), st.integers(1, 7)), max_size=12),
    dice=st.randoms(use_true_random=False),
)
def test_whatever_is_asked_no_limit_is_passed_and_everybody_gets_in(
    max_concurrent: int, per_key: int | None, asked: list[tuple[Caller, int]], dice: random.Random
) -> None:
    """Requests end, or give up, in any order."""
    asyncio.run(_bounded_and_alive(LimitsConfig(None, None, per_key, max_concurrent), asked, dice))


async def _bounded_and_alive(config: LimitsConfig, asked: list[tuple[Caller, int]], dice: random.Random) -> None:
    limits = Limits(config)
    async with requests(limits, *asked) as made:
        names = [caller.key_name for caller, _ in asked]
        most = min(config.max_concurrent, config.max_concurrent_per_key or config.max_concurrent)
        places = [min(n, most) for _, n in asked]
        left = set(range(len(made)))
        while left:
            inside = {i for i in left if made[i].is_in.is_set()}
            assert inside, "while there is room for any request, one is at work"
            assert limits.n_running == sum(places[i] for i in inside) <= config.max_concurrent
            for name in set(names):
                assert sum(places[i] for i in inside if names[i] == name) <= most
            chosen = dice.choice(sorted(left))
            if chosen in inside:
                await made[chosen].leave()
            else:
                made[chosen].task.cancel()
            await settled()
            left.remove(chosen)


async def test_the_key_with_the_fewest_at_work_is_next() -> None:
    limits = Limits(LimitsConfig(max_concurrent=3))
    async with requests(limits, ALICE, ALICE, ALICE, ALICE, ALICE, BOB) as made:
        await made[0].leave()
        await settled()
        assert made[5].is_in.is_set() and not made[3].is_in.is_set()


async def test_a_key_at_its_own_limit_does_not_block_others() -> None:
    limits = Limits(LimitsConfig(max_concurrent=8, max_concurrent_per_key=1))
    async with requests(limits, ALICE, ALICE, BOB) as (first, second, third):
        assert third.is_in.is_set() and not second.is_in.is_set()
        await first.leave()
        await settled()
        assert second.is_in.is_set()


async def test_a_full_queue_refuses_and_one_key_cannot_fill_it_before_others() -> None:
    limits = Limits(LimitsConfig(max_concurrent=1, max_queued=4))
    async with requests(limits, BOB, ALICE, ALICE):
        with pytest.raises(TooManyRequests, match="share of the queue") as refused:
            await use(limits, ALICE)
        assert 1 <= refused.value.retry_after_s <= 60
        async with requests_waiting(limits, CAROL, CAROL):
            with pytest.raises(TooManyRequests, match="the queue is full"):
                await use(limits, BOB)


@contextlib.asynccontextmanager
async def requests_waiting(limits: Limits, *callers: Caller) -> AsyncIterator[None]:
    made = [Request(limits, caller) for caller in callers]
    await settled()
    try:
        yield
    finally:
        for request in made:
            request.task.cancel()
        await asyncio.gather(*(request.task for request in made), return_exceptions=True)


async def test_alone_a_key_has_the_whole_queue() -> None:
    limits = Limits(LimitsConfig(max_concurrent=1, max_queued=4))
    async with requests(limits, *[ALICE] * 5):
        assert limits.n_waiting == 4
        with pytest.raises(TooManyRequests, match="the queue is full"):
            await use(limits, ALICE)


async def test_waiting_has_an_end(clock: Any) -> None:
    limits = Limits(LimitsConfig(requests_per_min=2, max_concurrent=1, max_wait_s=0.01), clock=clock)
    async with requests(limits, BOB):
        for _ in range(3):  # more than its requests a minute: a wait in vain is not charged
            with pytest.raises(TooManyRequests, match="no place came free"):
                await use(limits, ALICE)
            assert limits.n_waiting == 0


async def test_leaving_the_queue_leaves_nothing_behind() -> None:
    limits = Limits(LimitsConfig(max_concurrent=1))
    async with requests(limits, ALICE, BOB, CAROL) as (first, second, third):
        second.task.cancel()
        await settled()
        assert limits.n_waiting == 1
        await first.leave()
        await settled()
        assert third.is_in.is_set()


async def test_a_place_that_comes_in_the_moment_of_leaving_goes_to_the_next() -> None:
    limits = Limits(LimitsConfig(max_concurrent=1))
    async with requests(limits, ALICE, BOB, CAROL) as (first, second, third):
        first._may_leave.set()
        while limits.n_waiting == 2:  # until the place is second's, whose task does not know it yet
            await asyncio.sleep(0)
        assert not second.is_in.is_set()
        second.task.cancel()
        await settled()
        assert third.is_in.is_set()
        assert second.task.cancelled()


async def test_a_request_that_fails_gives_its_place_back() -> None:
    limits = Limits(LimitsConfig(max_concurrent=1))
    with pytest.raises(RuntimeError):
        async with limits.admit(ALICE, 1):
            raise RuntimeError("as a handler may")
    assert limits.n_running == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"requests_per_min": 0},
        {"tokens_per_min": -1},
        {"max_concurrent": 0},
        {"max_concurrent_per_key": 0},
        {"max_queued": -1},
        {"max_wait_s": float("nan")},
    ],
    ids=str,
)
def test_a_limit_that_lets_nothing_in_is_an_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadArgument, match=next(iter(wrong))):
        LimitsConfig(**wrong)
