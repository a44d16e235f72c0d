"""Stages that are killed, stopped or cut off in the middle of generations: no token changes, none is lost or repeated.

The stages are processes of their own (scripts/benchmarks/herd.py), killed by the system and replaced within
milliseconds; the client, the handlers and what lies between them are the real ones.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from swarm.client.generation import TokenLoop
from swarm.client.session import RouteSession
from swarm.sampling import SamplingParams
from swarm.terms import Span

SPANS = (Span(0, 2), Span(2, 4), Span(4, 6))
PROMPT = [(7 * i) % 300 + 3 for i in range(300)]
SHORT_PROMPT = PROMPT[:200]
"""It and its answer fill no page of the KV caches: no node has anything of it from the generation before."""

N_TOKENS = 24
GREEDY = SamplingParams(max_tokens=N_TOKENS, temperature=0.0, ignore_eos=True)
SEEDED = SamplingParams(max_tokens=N_TOKENS, temperature=1.0, top_p=0.95, seed=17, ignore_eos=True)
POSITIONS = (0, 1, 3, 6, 10, 15, 19, 22)
"""After which token the stage is killed."""

NOTICED_S = 3.0
GAP_S = NOTICED_S + 1.0 + 6.0
"""A second after it was noticed, on a machine that may be busy with other tests; scripts/bench failover measures it."""


@pytest.fixture
async def herd_of(release: Callable[..., Path]) -> AsyncIterator[Callable[..., Any]]:
    """await herd_of(dtype, n_each, exact=…): n_each nodes for each of SPANS."""
    from benchmarks.herd import Herd

    herds: list[Herd] = []

    async def make(dtype: str = "fp32", n_each: int = 2, **settings: Any) -> Herd:
        herds.append(await Herd(release("tiny-mixtral"), dtype, **settings).__aenter__())
        for span in SPANS * n_each:
            await herds[-1].bear(span)
        return herds[-1]

    yield make
    for herd in herds:
        await herd.__aexit__(None, None, None)


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What the client fed, in steps: (epoch, number of ids)."""
    steps: list[tuple[int, int]] = []

    class Recording(RouteSession):
        async def step(self, chunks: Any, position: int, allowed: bytes = b"") -> Any:
            steps.append((self._open.epoch, sum(map(len, chunks))))
            return await super().step(chunks, position, allowed)

    monkeypatch.setattr("swarm.client.generation.RouteSession", Recording)
    return steps


async def generate(
    herd: Any, params: SamplingParams, at: dict[int, Callable[[TokenLoop], Any]], prompt: list[int] = PROMPT
) -> tuple[Any, float]:
    """at: what to do once the token of this index was seen. -> the generation, and its longest gap after a token."""
    loop = herd.loop(prompt, params)
    last_s = gap_s = 0.0
    n_seen = 0
    async for event in loop.events():
        assert event.index == n_seen
        n_seen += 1
        gap_s = max(gap_s, event.elapsed_s - last_s) if event.index else 0.0
        last_s = event.elapsed_s
        if event.index in at:
            await at[event.index](loop)
    assert n_seen == N_TOKENS
    return loop.generation, gap_s


def node_at(herd: Any, loop: TokenLoop, hop_idx: int) -> Any:
    route = loop.generation.route
    assert route is not None
    return herd[route.hops[hop_idx].node_id]


def killing(herd: Any, *hop_idxs: int) -> Callable[[TokenLoop], Any]:
    """Kill these hops of the route at once."""

    async def kill(loop: TokenLoop) -> None:
        victims = [node_at(herd, loop, hop_idx) for hop_idx in hop_idxs]
        for victim in victims:
            victim.kill()
        for victim in victims:
            await victim.died.wait()
            herd.bury(victim)

    return kill


@pytest.mark.parametrize(("dtype", "exact"), [("fp32", False), ("bf16", True)], ids=["fp32", "exact bf16"])
async def test_each_stage_may_die_at_any_token(
    herd_of: Callable[..., Any], fed: list[tuple[int, int]], dtype: str, exact: bool
) -> None:
    herd = await herd_of(dtype, exact=exact)
    n_same = 0
    for params in (GREEDY, SEEDED):
        undisturbed, _ = await generate(herd, params, {}, SHORT_PROMPT)
        assert undisturbed.timings.n_replays == 0
        for hop_idx, span in enumerate(SPANS):
            for position in POSITIONS:
                fed.clear()
                generation, gap_s = await generate(herd, params, {position: killing(herd, hop_idx)}, SHORT_PROMPT)
                assert generation.ids == undisturbed.ids
                assert generation.timings.n_replays >= 1, "a busy machine may take one more for lost"
                first_fed = next(n for epoch, n in fed if epoch == 2)
                assert first_fed == (1 if hop_idx else len(SHORT_PROMPT) + position + 1), "what no stage has"
                assert gap_s < GAP_S
                n_same += 1
                await herd.bear(span)
    assert n_same == 48


async def test_in_fast_bf16_a_replacement_is_fed_in_the_very_steps(
    herd_of: Callable[..., Any], fed: list[tuple[int, int]]
) -> None:
    herd = await herd_of("bf16")
    for params in (GREEDY, SEEDED):
        undisturbed, _ = await generate(herd, params, {})
        for hop_idx, span in enumerate(SPANS):
            fed.clear()
            generation, _ = await generate(herd, params, {15: killing(herd, hop_idx)})
            assert generation.ids == undisturbed.ids
            assert next(n for epoch, n in fed if epoch == 2) == (1 if hop_idx else len(PROMPT) + 16)
            await herd.bear(span)


@pytest.mark.parametrize("lost", [(0, 1), (1, 2), (0, 1, 2)], ids=str)
async def test_neighbours_lost_at_once(
    herd_of: Callable[..., Any], fed: list[tuple[int, int]], lost: tuple[int, ...]
) -> None:
    herd = await herd_of()
    for params, prompt in ((GREEDY, PROMPT), (SEEDED, PROMPT[::-1])):  # of neither does the spare know a page
        undisturbed, _ = await generate(herd, params, {}, prompt)
        fed.clear()
        generation, _ = await generate(herd, params, {8: killing(herd, *lost)}, prompt)
        assert generation.ids == undisturbed.ids
        assert sum(n for epoch, n in fed if epoch > 1) == (N_TOKENS - 9) + (len(PROMPT) + 8 if 0 in lost else 0)
        for hop_idx in lost:
            await herd.bear(SPANS[hop_idx])


@pytest.mark.parametrize("hop_idx", [0, 1, 2])
async def test_a_spare_that_dies_while_it_is_filled_is_replaced_as_well(
    herd_of: Callable[..., Any], hop_idx: int
) -> None:
    herd = await herd_of(n_each=1)
    undisturbed, _ = await generate(herd, SEEDED, {})
    doomed = await herd.bear(SPANS[hop_idx], crash=1.0)  # by the first step that reaches it

    async def another() -> None:
        await doomed.died.wait()
        herd.bury(doomed)
        await herd.bear(SPANS[hop_idx])

    replacing = asyncio.create_task(another())
    generation, _ = await generate(herd, SEEDED, {8: killing(herd, hop_idx)})
    await replacing
    assert generation.ids == undisturbed.ids
    assert generation.timings.n_replays >= 2


async def test_without_a_spare_the_client_says_what_it_waits_for_and_goes_on_when_it_comes(
    herd_of: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    herd = await herd_of(n_each=1)
    undisturbed, _ = await generate(herd, GREEDY, {})
    waiting = asyncio.Event()

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("waiting up to "):
                waiting.set()

    log, told = logging.getLogger("swarm.client"), Told()
    log.addHandler(told)
    log.setLevel(logging.INFO)

    async def arrive() -> None:
        await waiting.wait()
        await herd.bear(SPANS[1])

    arriving = asyncio.create_task(arrive())
    try:
        generation, _ = await generate(herd, GREEDY, {8: killing(herd, 1)})
        await arriving
    finally:
        log.removeHandler(told)
    assert generation.ids == undisturbed.ids
    said = [record.getMessage() for record in caplog.records]
    assert any("layers 2:4 of 6 have no node" in words for words in said), said


@pytest.mark.parametrize("hop_idx", [0, 1, 2])
async def test_a_stage_that_was_stopped_and_wakes_up_changes_nothing(herd_of: Callable[..., Any], hop_idx: int) -> None:
    """It wakes in the middle of the generation that it was lost to, with a step to answer and a stream to answer on."""
    herd = await herd_of()
    undisturbed, _ = await generate(herd, SEEDED, {})
    stopped: list[Any] = []

    async def stop(loop: TokenLoop) -> None:
        stopped.append(node_at(herd, loop, hop_idx))
        stopped[0].signal(signal.SIGSTOP)

    async def wake(loop: TokenLoop) -> None:
        assert node_at(herd, loop, hop_idx) is not stopped[0]
        stopped[0].signal(signal.SIGCONT)

    generation, gap_s = await generate(herd, SEEDED, {8: stop, 12: wake})
    assert generation.ids == undisturbed.ids
    assert generation.timings.n_replays == 1
    assert gap_s < GAP_S
    assert not stopped[0].died.is_set()


async def test_a_stage_that_becomes_slow_is_left_if_another_is_there(herd_of: Callable[..., Any]) -> None:
    herd = await herd_of(n_each=1)
    params = SamplingParams(max_tokens=40, temperature=1.0, seed=17, ignore_eos=True)
    undisturbed = [event.id async for event in herd.loop(PROMPT, params).events()]
    herd.bury(next(sheep for sheep in herd.sheep if sheep.span == SPANS[1]))
    slow = await herd.bear(SPANS[1], delay_s=0.4, delays_after=24)
    loop = herd.loop(PROMPT, params)
    ids = []
    async for event in loop.events():
        ids.append(event.id)
        if event.index == 30:
            assert node_at(herd, loop, 1) is slow, "nobody else is there"
            await herd.bear(SPANS[1])
    assert ids == undisturbed
    assert loop.generation.timings.n_replays == 1
    assert node_at(herd, loop, 1) is not slow
    assert not slow.died.is_set()
