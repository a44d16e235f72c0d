"""A generation that goes on elsewhere, or later, goes on as if nothing had happened: in bf16 as in fp32."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from swarm.sampling import SamplingParams
from swarm.terms import Profile

N_PROMPTS = 6


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
async def test_a_resumed_generation_has_the_tokens_of_an_undisturbed_one(
    dtype: str, release: Callable[..., Path], local_swarm: Callable[[Path], Any], tmp_path: Path
) -> None:
    swarm = local_swarm(release("tiny-mixtral"))
    await swarm.publish()
    await asyncio.gather(*(swarm.start(span, profile=Profile(dtype)) for span in ("0:2", "2:6")))
    generator = torch.Generator().manual_seed(3)
    async with swarm.client() as client:
        for n in range(N_PROMPTS):
            prompt = torch.randint(3, 300, (20 + n,), generator=generator).tolist()
            params = SamplingParams(max_tokens=64, temperature=0.0 if n % 2 else 1.0, seed=n, ignore_eos=True)
            undisturbed = await client.generate(prompt, params)
            path = tmp_path / f"journal-{n}"
            async with client.stream(prompt, params, journal=path) as cut:
                async for event in cut:
                    if event.index == 30 + n:
                        break
            assert len(cut.result.ids) == 31 + n
            async with client.resume(path) as rest:
                n_new = len([event async for event in rest])
            assert n_new == 64 - 31 - n
            assert rest.result.ids == undisturbed.ids


async def test_a_stage_that_is_on_the_next_route_too_keeps_one_session(
    release: Callable[..., Path], local_swarm: Callable[[Path], Any]
) -> None:
    """The first stage takes one session only: were the replay another session to it, it would be refused as full."""
    swarm = local_swarm(release("tiny-mixtral"))
    await swarm.publish()
    await swarm.start("0:2", max_sessions=1)
    doomed, spare = await asyncio.gather(swarm.start("2:6"), swarm.start("2:6"))
    params = SamplingParams(max_tokens=60, temperature=0.0, ignore_eos=True)
    async with swarm.client() as client:
        undisturbed = await client.generate([5, 6, 7], params)
        async with client.stream([5, 6, 7], params) as stream:
            async for event in stream:
                if event.index == 5:
                    last = str(stream.result.route.hops[-1].address)
                    victim = doomed if str((await doomed.event("ready"))["address"]) == last else spare
                    await victim.kill()
    assert stream.result.ids == undisturbed.ids
    assert stream.result.timings.n_replays >= 1
