"""What goes into the next batch, and the thread that runs batches."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.stage.batch import DECODE_ROWS, BatchConfig, Job, Slice, next_batch
from node.stage.scheduler import ComputeThread
from swarm.errors import BadArgument, SessionLost

CONFIG = BatchConfig(max_rows=64, prompt_rows=16)


def job(session: str, n_rows: int, group: str = "whole", n_done: int = 0) -> Job:
    return Job(session, group, n_rows, None, lambda job: None, 0.0, n_done=n_done)


def names(slices: list[Slice]) -> list[tuple[object, int]]:
    return [(part.job.session, part.n_rows) for part in slices]


def test_all_decode_rows_go_together_and_before_the_prompts() -> None:
    waiting = [job("a", 1), job("long", 500), job("b", 1), job("c", 3)]
    assert names(next_batch(waiting, CONFIG)) == [("a", 1), ("b", 1), ("c", 3), ("long", 16)]


def test_a_lone_prompt_takes_the_whole_batch_and_goes_on_where_it_was() -> None:
    assert names(next_batch([job("long", 500)], CONFIG)) == [("long", 64)]
    assert names(next_batch([job("long", 500, n_done=490)], CONFIG)) == [("long", 10)]


def test_prompts_share_what_is_left_oldest_first() -> None:
    assert names(next_batch([job("a", 40), job("b", 40), job("c", 40)], CONFIG)) == [("a", 40), ("b", 24)]


def test_a_sessions_next_step_waits_for_its_first() -> None:
    assert names(next_batch([job("a", 20), job("a", 1), job("b", 1)], CONFIG)) == [("b", 1), ("a", 16)]


def test_on_a_longer_route_only_a_share_of_the_sessions_decodes_at_once() -> None:
    waiting = [job(name, 1) for name in "abcd"]
    assert names(next_batch(waiting, CONFIG, 2)) == [("a", 1), ("b", 1)]
    assert names(next_batch([*waiting, job("long", 50)], CONFIG, 2)) == [("a", 1), ("b", 1), ("long", 16)]


async def test_two_halves_of_the_sessions_take_turns_on_a_route_of_two_hops() -> None:
    batches: list[set[object]] = []
    running, go_on = threading.Event(), threading.Event()

    def compute(slices: list[Slice]) -> None:
        batches.append({part.job.session for part in slices})
        running.set()
        go_on.wait(30)

    thread = ComputeThread(compute, CONFIG)

    async def decode(name: str) -> None:
        for _ in range(5):
            await thread.run(name, "g", 1, None, n_hops=2)

    first = asyncio.create_task(decode("a"))
    await asyncio.to_thread(running.wait, 30)
    others = [asyncio.create_task(decode(name)) for name in "bcd"]
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(first, *others)
    thread.close()
    assert all(len(batch) <= 2 for batch in batches)
    assert max(map(len, batches)) == 2


def test_the_oldest_job_names_the_group() -> None:
    waiting = [job("a", 1, "layers 0:4"), job("b", 1, "layers 4:8"), job("c", 1, "layers 0:4")]
    assert names(next_batch(waiting, CONFIG)) == [("a", 1), ("c", 1)]


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 200), st.sampled_from(["x", "y"]), st.integers(0, 199)),
        max_size=30,
    )
)
def test_a_batch_is_bounded_and_leaves_nobody_out(jobs: list[tuple[str, int, str, int]]) -> None:
    waiting = [job(name, n, group, 0 if n <= DECODE_ROWS else min(done, n - 1)) for name, n, group, done in jobs]
    batch = next_batch(waiting, CONFIG)
    assert bool(batch) == bool(waiting)
    assert sum(part.n_rows for part in batch) <= CONFIG.max_rows
    assert len({part.job.session for part in batch}) == len(batch)
    for part in batch:
        assert part.job.group == waiting[0].group and 0 < part.n_rows <= part.job.n_left
        assert not part.job.is_decode or part.n_rows == part.job.n_left
        assert next(other for other in waiting if other.session == part.job.session) is part.job
    mine = [other for other in waiting if other.group == waiting[0].group]
    prompts = [other for other in mine if not other.is_decode]
    if prompts and mine[0] is prompts[0]:
        assert any(part.job is prompts[0] for part in batch), "a prompt is never left out"


async def test_what_arrives_while_a_batch_runs_goes_into_the_next_one() -> None:
    batches: list[list[str]] = []
    running, go_on = threading.Event(), threading.Event()

    def compute(slices: list[Slice]) -> None:
        batches.append([str(part.job.session) for part in slices])
        running.set()
        go_on.wait(30)

    thread = ComputeThread(compute, CONFIG)
    first = asyncio.create_task(thread.run("a", "g", 1, None))
    await asyncio.to_thread(running.wait, 30)
    others = [asyncio.create_task(thread.run(name, "g", 1, None)) for name in "bcd"]
    await asyncio.sleep(0)  # let each of them be queued
    go_on.set()
    await asyncio.gather(first, *others)
    thread.close()
    assert batches == [["a"], ["b", "c", "d"]]


async def test_a_light_clients_prompt_is_in_the_next_batch_however_much_of_a_flood_waits() -> None:
    batches: list[list[tuple[object, int]]] = []
    go_on = threading.Semaphore(0)

    def compute(slices: list[Slice]) -> None:
        batches.append(names(slices))
        go_on.acquire(timeout=30)

    thread = ComputeThread(compute, CONFIG)
    flood = [asyncio.create_task(thread.run(f"f{nth}", "g", 40, None, client="flood")) for nth in range(40)]
    await asyncio.sleep(0)
    go_on.release(8)
    async with asyncio.timeout(30):
        while len(batches) < 9:
            await asyncio.sleep(0)
    light = asyncio.create_task(thread.run("light", "g", 50, None, client="light"))
    await asyncio.sleep(0)
    go_on.release()
    async with asyncio.timeout(30):
        while len(batches) < 10:
            await asyncio.sleep(0)
    assert batches[9] == [("light", 50)], "it waits for the batch that ran, and then has one to itself"
    go_on.release(100)
    await asyncio.gather(light, *flood)
    thread.close()
    assert thread.seconds_per_row > 0


async def test_a_prompt_does_not_hold_up_the_tokens_of_others() -> None:
    done: list[str] = []
    go_on = threading.Semaphore(0)

    def compute(slices: list[Slice]) -> None:
        go_on.acquire(timeout=30)
        done.extend(str(part.job.session) for part in slices if part.job.is_decode)

    thread = ComputeThread(compute, CONFIG)
    prompt = asyncio.create_task(thread.run("long", "g", 300, None))
    await asyncio.sleep(0)
    token = asyncio.create_task(thread.run("a", "g", 1, None))
    await asyncio.sleep(0)
    go_on.release()
    go_on.release()
    await token
    assert not prompt.done()
    go_on.release(100)
    finished = await prompt
    thread.close()
    assert finished.n_done == 300 and done == ["a"]


async def test_a_computation_that_raises_fails_its_batch_and_not_the_thread() -> None:
    def compute(slices: list[Slice]) -> None:
        if slices[0].job.work == "bad":
            raise ZeroDivisionError

    thread = ComputeThread(compute, CONFIG)
    with pytest.raises(ZeroDivisionError):
        await thread.run("a", "g", 1, "bad")
    assert (await thread.run("a", "g", 1, "good")).n_done == 1
    thread.close()
    with pytest.raises(SessionLost, match="shutting down"):
        await thread.run("a", "g", 1, "good")


async def test_a_long_prompt_of_one_group_does_not_hold_up_the_tokens_of_another() -> None:
    order: list[object] = []
    go_on = threading.Semaphore(0)

    def compute(slices: list[Slice]) -> None:
        go_on.acquire(timeout=30)
        order.append(slices[0].job.session)

    thread = ComputeThread(compute, CONFIG)
    prompt = asyncio.create_task(thread.run("long", "layers 0:4", 640, None))
    await asyncio.sleep(0)
    token = asyncio.create_task(thread.run("a", "layers 4:8", 1, None))
    await asyncio.sleep(0)
    go_on.release()
    go_on.release()
    await token
    assert not prompt.done()
    go_on.release(100)
    await prompt
    thread.close()
    assert order.index("a") <= 1


@pytest.mark.parametrize("wrong", [{"max_rows": 8}, {"max_rows": 513}, {"prompt_rows": 0}, {"max_rows": 100}])
def test_a_batch_that_could_stay_empty_or_outgrow_its_reservation_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(BadArgument):
        BatchConfig(**wrong)


async def test_closing_fails_what_waits() -> None:
    running, go_on = threading.Event(), threading.Event()

    def compute(slices: list[Slice]) -> None:
        running.set()
        go_on.wait(30)

    thread = ComputeThread(compute, CONFIG)
    first = asyncio.create_task(thread.run("a", "g", 1, None))
    await asyncio.to_thread(running.wait, 30)
    second = asyncio.create_task(thread.run("a", "g", 1, None))
    await asyncio.sleep(0)
    closing = asyncio.create_task(asyncio.to_thread(thread.close))
    async with asyncio.timeout(30):
        while not thread._closed:  # before the first batch ends, or the second would be computed
            await asyncio.sleep(0)
    go_on.set()
    await closing
    assert (await first).n_done == 1
    with pytest.raises(SessionLost):
        await second


async def test_a_loop_that_is_closed_takes_nothing_from_the_others() -> None:
    running, go_on = threading.Event(), threading.Event()

    def compute(slices: list[Slice]) -> None:
        running.set()
        go_on.wait(30)

    thread = ComputeThread(compute, CONFIG)
    gone = asyncio.new_event_loop()
    coroutine = thread.run("gone", "g", 1, None)
    task = gone.create_task(coroutine)
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    gone.call_soon(gone.stop)

    def begin_and_close() -> None:
        gone.run_forever()
        gone.close()

    beside = threading.Thread(target=begin_and_close)
    beside.start()
    await asyncio.to_thread(running.wait, 30)
    await asyncio.to_thread(beside.join, 30)
    waiting = asyncio.create_task(thread.run("here", "g", 1, None))
    await asyncio.sleep(0)
    go_on.set()
    assert (await waiting).n_left == 0
    assert not task.done()
    thread.close()
    coroutine.close()
