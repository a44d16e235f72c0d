"""Single experts on nodes of their own: the same tokens as anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from swarm.cli.release_plan import parse_experts
from swarm.sampling import SamplingParams
from swarm.terms import Span

GREEDY = SamplingParams(max_tokens=12, temperature=0.0, ignore_eos=True)
PROMPT = [5, 6, 7, 8, 9]


async def test_experts_elsewhere_give_the_same_tokens(
    release: Callable[..., Path], local_swarm: Callable[[Path], Any]
) -> None:
    swarm = local_swarm(release("tiny-mixtral"))
    await swarm.publish()
    whole = await swarm.start("0:6")
    async with swarm.client() as client:
        expected = await client.generate(PROMPT, GREEDY)
    await whole.stop()
    await asyncio.gather(
        swarm.start(trunks=(Span(0, 6),)),
        swarm.start(experts=tuple(parse_experts("0-5:0-3"))),
        swarm.start(experts=tuple(parse_experts("0-5:4-7"))),
    )
    async with swarm.client() as client:
        answer = await client.generate(PROMPT, GREEDY)
        status = await client.status()
    assert answer.ids == expected.ids
    assert status.missing_layers == ()
