"""A node that is asked for more than it can do: everybody gets every token in the end, and a light client at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from swarm.sampling import SamplingParams

PAGE_BYTES = 6 * 256 * 2 * 2 * 16 * 4  # of all layers of tiny-mixtral in fp32
N_STREAMS = 8


def prompt(nth: int) -> list[int]:
    return [(7 * i + 11 * nth) % 500 + 3 for i in range(200 + 2 * nth)]


async def test_sessions_that_outgrow_the_cache_give_way_and_no_token_changes(
    release: Callable[..., Path], local_swarm: Callable[[Path], Any]
) -> None:
    """Short answers have taught the node to take many sessions; then each needs two of the twelve pages."""
    swarm = local_swarm(release("tiny-mixtral"))
    await swarm.publish()
    node = await swarm.start("0:6", cache_budget_bytes=12 * PAGE_BYTES)
    params = SamplingParams(max_tokens=80, temperature=0.8, seed=3, ignore_eos=True)
    short = SamplingParams(max_tokens=1, temperature=0.0, ignore_eos=True)
    async with swarm.client(peers=[str(node.events["ready"][-1]["address"])], timeout_s=60.0) as client:
        expected = [(await client.generate(prompt(nth), params)).ids for nth in range(N_STREAMS)]
        for _ in range(45):
            await client.generate(prompt(0)[:3], short)
        got = await asyncio.gather(*(client.generate(prompt(nth), params) for nth in range(N_STREAMS)))
    assert [one.ids for one in got] == expected
    assert sum(one.timings.n_replays for one in got) > 0, "some had to wait, or to give way"
    assert node.cache_bytes <= 12 * PAGE_BYTES


async def test_a_light_client_is_served_while_another_floods(
    release: Callable[..., Path], local_swarm: Callable[[Path], Any]
) -> None:
    swarm = local_swarm(release("tiny-mixtral"))
    await swarm.publish()
    node = await swarm.start("0:6", max_sessions=8)
    peers = [str(node.events["ready"][-1]["address"])]
    params = SamplingParams(max_tokens=400, temperature=0.0, ignore_eos=True)
    async with swarm.client(peers=peers) as light, swarm.client(peers=peers) as flood:
        expected = await light.generate(prompt(1), SamplingParams(max_tokens=8, temperature=0.0, ignore_eos=True))
        asked = [asyncio.create_task(flood.generate(prompt(nth), params)) for nth in range(32)]
        async with asyncio.timeout(20):
            while node.n_sessions < 6:
                await asyncio.sleep(0.01)
        got = await light.generate(prompt(1), SamplingParams(max_tokens=8, temperature=0.0, ignore_eos=True))
        assert got.ids == expected.ids
        assert got.timings.n_replays == 0, "it was never refused"
        assert sum(task.done() for task in asked) < 16, "most of the flood still waits"
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
