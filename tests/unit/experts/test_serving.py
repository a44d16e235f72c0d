"""What one caller can make a host of experts hold, and what becomes of calls that fail inside."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator

import pytest
import torch

from node.experts import ExpertHost, ExpertHostConfig
from node.model import ExpertStore, Numerics
from node.server import ExpertsHandler
from node.server.experts import MAX_CALLS_AT_ONCE
from node.weights import PRESETS
from node.weights.synthetic import random_tensors
from swarm.errors import ExpertUnavailable, RemoteProtocolError, SessionLost, StageFull
from swarm.messages import ExpertAnswer, ExpertCall, ExpertOpen, ExpertRefusal, Rows
from swarm.terms import ExpertId, Infohash, NodeId, Profile

ARGS = PRESETS["tiny-mixtral"].args
RELEASE = Infohash("ab" * 20)
PROFILE = Profile("bf16")
CALLER = NodeId("c" * 52)


def call_of(request_id: int, n_rows: int = 1) -> ExpertCall:
    rows = Rows(n_rows, "bf16", bytes(2 * ARGS.dim * n_rows))
    return ExpertCall(request_id, 1, ((0, tuple(range(n_rows))),), rows)


async def answer(host: ExpertHost, call: ExpertCall, caller: NodeId) -> ExpertAnswer:
    answered: asyncio.Future[ExpertAnswer | BaseException] = asyncio.get_running_loop().create_future()
    end = host.begin(call, caller, answered.set_result)
    outcome = await answered
    end()
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


@pytest.fixture
def store() -> ExpertStore:
    store = ExpertStore(ARGS, Numerics())
    store.load(ExpertId(1, 0), dict(random_tensors(ARGS, 3)), "layers.1.feed_forward.experts.0.")
    return store


@pytest.fixture
def host(store: ExpertStore) -> Iterator[ExpertHost]:
    host = ExpertHost(store)
    yield host
    host.close()


class Calls:
    """Without end; counts those that were read."""

    def __init__(self) -> None:
        self.n_read = 0

    def __aiter__(self) -> Calls:
        return self

    async def __anext__(self) -> ExpertCall:
        self.n_read += 1
        return call_of(self.n_read)


async def test_what_its_caller_does_not_read_stops_the_stream(host: ExpertHost) -> None:
    calls = Calls()
    handler = ExpertsHandler(NodeId("a" * 52), RELEASE, PROFILE, host)
    replies = handler.apply(ExpertOpen(RELEASE, PROFILE), calls, CALLER)
    assert isinstance(replies, AsyncGenerator)
    await anext(replies)
    async with asyncio.timeout(10):
        while calls.n_read < MAX_CALLS_AT_ONCE:
            await asyncio.sleep(0)
    for _ in range(200):  # far more turns than a call needs to be answered, were it read
        await asyncio.sleep(0.001)
    assert calls.n_read == MAX_CALLS_AT_ONCE
    await anext(replies)
    await replies.aclose()


async def test_answers_that_nobody_takes_count_as_their_caller_s(store: ExpertStore) -> None:
    host = ExpertHost(store, ExpertHostConfig(max_waiting_rows=8))

    class OneByOne(Calls):
        async def __anext__(self) -> ExpertCall:
            while host._running:
                await asyncio.sleep(0.001)
            return await super().__anext__()

    calls = OneByOne()
    handler = ExpertsHandler(NodeId("a" * 52), RELEASE, PROFILE, host)
    replies = handler.apply(ExpertOpen(RELEASE, PROFILE), calls, CALLER)
    assert isinstance(replies, AsyncGenerator)
    await anext(replies)
    async with asyncio.timeout(10):
        while calls.n_read < MAX_CALLS_AT_ONCE or host._running:
            await asyncio.sleep(0.001)
    waiting = [await anext(replies) for _ in range(MAX_CALLS_AT_ONCE - 1)]
    refused = [reply for reply in waiting if isinstance(reply, ExpertRefusal)]
    assert len(refused) >= len(waiting) - 8
    assert {reply.code for reply in refused} == {StageFull.__name__}
    await replies.aclose()
    assert (await answer(host, call_of(1, n_rows=4), CALLER)).rows.n_rows == 4, "all shares have come back"
    host.close()


async def _refusal(host: ExpertHost) -> ExpertRefusal:
    async def one() -> AsyncIterator[ExpertCall]:
        yield call_of(7)

    handler = ExpertsHandler(NodeId("a" * 52), RELEASE, PROFILE, host)
    async with asyncio.timeout(10):
        (reply,) = [reply async for reply in handler.apply(ExpertOpen(RELEASE, PROFILE), one(), CALLER)]
    assert isinstance(reply, ExpertRefusal) and reply.request_id == 7
    return reply


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (torch.OutOfMemoryError("no memory"), StageFull.__name__),
        (MemoryError(), StageFull.__name__),
        (RuntimeError("a defect"), "RemoteProtocolError"),
    ],
)
async def test_a_call_that_fails_inside_is_refused(
    store: ExpertStore, host: ExpertHost, error: Exception, code: str
) -> None:
    def fail(_: torch.Tensor) -> torch.Tensor:
        raise error

    store.of_layer(1)[0] = fail  # type: ignore[assignment]
    assert (await _refusal(host)).code == code


async def test_an_expert_that_goes_while_its_call_waits_is_refused(store: ExpertStore, host: ExpertHost) -> None:
    experts = store.of_layer(1)
    began, may_go_on = threading.Event(), threading.Event()

    def wait(x: torch.Tensor) -> torch.Tensor:
        began.set()
        may_go_on.wait(10)
        return x

    experts[0] = wait  # type: ignore[assignment]
    first = asyncio.create_task(answer(host, call_of(1), CALLER))
    await asyncio.to_thread(began.wait, 10)
    second = asyncio.create_task(_refusal(host))
    for _ in range(10):
        await asyncio.sleep(0)  # until it waits behind the first
    del experts[0]
    may_go_on.set()
    assert (await first).rows.n_rows == 1
    assert (await second).code == ExpertUnavailable.__name__


async def test_one_caller_leaves_room_for_others(store: ExpertStore) -> None:
    host = ExpertHost(store, ExpertHostConfig(max_waiting_rows=16))
    flood = [asyncio.create_task(answer(host, call_of(i), CALLER)) for i in range(40)]
    await asyncio.sleep(0)  # all of them asked, none is done
    await answer(host, call_of(1), NodeId("d" * 52))
    answers = await asyncio.gather(*flood, return_exceptions=True)
    host.close()
    assert sum(isinstance(answer, StageFull) for answer in answers) == 40 - 12
    assert not any(isinstance(answer, Exception) and not isinstance(answer, StageFull) for answer in answers)


async def test_an_answer_that_no_message_holds_is_refused(store: ExpertStore) -> None:
    host = ExpertHost(store, ExpertHostConfig(max_answer_bytes=3 * 2 * ARGS.dim))
    await answer(host, call_of(1, n_rows=3), CALLER)
    with pytest.raises(RemoteProtocolError, match="bytes"):
        await answer(host, call_of(2, n_rows=4), CALLER)
    host.close()


async def test_what_is_wrong_with_a_later_frame_is_said_though_all_calls_were_answered(host: ExpertHost) -> None:
    """Also where it comes while the last answer is on its way out."""
    may_fail, failed = asyncio.Event(), asyncio.Event()

    async def calls() -> AsyncIterator[ExpertCall]:
        yield call_of(1)
        await may_fail.wait()
        failed.set()
        raise RemoteProtocolError("that was no frame")

    handler = ExpertsHandler(NodeId("h" * 52), RELEASE, PROFILE, host)
    async with asyncio.timeout(20):
        replies = aiter(handler.apply(ExpertOpen(RELEASE, PROFILE), calls(), CALLER))
        assert isinstance(await anext(replies), ExpertAnswer)
        may_fail.set()
        await failed.wait()
        await asyncio.sleep(0)  # for the reading task to end
        with pytest.raises(RemoteProtocolError, match="no frame"):
            await anext(replies)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (ExpertCall(1, 1, ((7, (0,)),), Rows(1, "bf16", bytes(2 * ARGS.dim))), ExpertUnavailable),
        (ExpertCall(1, 99, ((0, (0,)),), Rows(1, "bf16", bytes(2 * ARGS.dim))), ExpertUnavailable),
        (ExpertCall(1, 1, ((0, (0,)),), Rows(1, "fp32", bytes(4 * ARGS.dim))), RemoteProtocolError),
        (ExpertCall(1, 1, ((0, (0,)),), Rows(1, "bf16", bytes(2 * ARGS.dim - 2))), RemoteProtocolError),
        (
            ExpertCall(1, 1, ((0, tuple(range(2049))),), Rows(2049, "bf16", bytes(2049 * 2 * ARGS.dim))),
            RemoteProtocolError,
        ),
    ],
    ids=["expert not here", "no such layer", "dtype", "length", "rows"],
)
async def test_a_call_that_cannot_be_meant_is_refused_alone(
    store: ExpertStore, call: ExpertCall, error: type[Exception]
) -> None:
    host = ExpertHost(store)
    with pytest.raises(error):
        await answer(host, call, CALLER)
    good = ExpertCall(2, 1, ((0, (0,)),), Rows(1, "bf16", bytes(2 * ARGS.dim)))
    assert (await answer(host, good, CALLER)).request_id == 2
    host.close()
    with pytest.raises(SessionLost):
        await answer(host, good, CALLER)


async def test_what_waits_is_bounded(store: ExpertStore) -> None:
    host = ExpertHost(store, ExpertHostConfig(max_waiting_rows=3))
    call = ExpertCall(1, 1, ((0, (0, 1)),), Rows(2, "bf16", bytes(4 * ARGS.dim)))
    answers = await asyncio.gather(*(answer(host, call, CALLER) for _ in range(3)), return_exceptions=True)
    host.close()
    assert [isinstance(answer, StageFull) for answer in answers] == [False, True, True]
