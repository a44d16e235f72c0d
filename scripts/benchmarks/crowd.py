"""A client process of the bench `overload`: so many streams at once of one client, each followed by the next.

With --light N: one at a time, N of them, and then how long each one's first token took.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.models import prompts_of
from swarm.cli.console import print_event
from swarm.client import AsyncClient, connect_async
from swarm.errors import SwarmError
from swarm.sampling import SamplingParams

SCHEMA = "swarm.crowd/1"
LIGHT_PROMPT_TOKENS = 256
VOCAB = 32000
TELL_S = 0.25


async def crowd(client: AsyncClient, n_streams: int) -> None:
    """For ever. Prompts of 50 to 300 tokens, answers of 20 to 350."""
    numbers = itertools.count()
    n_tokens = 0

    async def stream() -> None:
        nonlocal n_tokens
        while True:
            number = next(numbers)
            prompt = prompts_of(number % 97 + 1, 50 + number * 37 % 250, VOCAB)[-1]
            params = SamplingParams(max_tokens=20 + number * 53 % 330, temperature=0.0, ignore_eos=True)
            try:
                async with client.stream(prompt, params) as events:
                    async for _ in events:
                        n_tokens += 1
            except SwarmError as error:
                print_event(SCHEMA, "failed", message=error.message)

    streams = [asyncio.create_task(stream()) for _ in range(n_streams)]
    print_event(SCHEMA, "started")
    while True:
        print_event(SCHEMA, "tokens", n_tokens=n_tokens)
        await asyncio.wait(streams, timeout=TELL_S, return_when=asyncio.FIRST_EXCEPTION)


async def light(client: AsyncClient, n_generations: int) -> None:
    params = SamplingParams(max_tokens=2, temperature=0.0, ignore_eos=True)
    seconds = []
    for number in range(-1, n_generations):
        prompt = prompts_of(200 + number, LIGHT_PROMPT_TOKENS, VOCAB)[-1]
        started_s = time.perf_counter()
        async with client.stream(prompt, params) as events:
            await anext(events)
            if number >= 0:
                seconds.append(time.perf_counter() - started_s)
            async for _ in events:
                pass
        await asyncio.sleep(0.3)
    print_event(SCHEMA, "first_tokens", seconds=seconds)
    await asyncio.Event().wait()


async def main(magnet: str, data_dir: str, peer: str, n_streams: int, options: Iterator[str]) -> None:
    async with connect_async(
        magnet, network="loopback", data_dir=Path(data_dir), peers=[peer], timeout_s=120.0
    ) as client:
        while not (await client.status()).nodes:
            await asyncio.sleep(0.1)
        print_event(SCHEMA, "ready")
        if next(options, "") == "--light":
            await light(client, int(next(options)))
        else:
            await crowd(client, n_streams)


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), iter(sys.argv[5:])))
    except KeyboardInterrupt:
        pass
