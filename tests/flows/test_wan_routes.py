"""Over links of unequal length a client takes the near nodes, and leaves a link that became long."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from swarm.sampling import SamplingParams
from swarm.terms import Address

GREEDY = SamplingParams(max_tokens=4, temperature=0.0)
SCRIPTS = str(Path(__file__).parents[2] / "scripts")
if SCRIPTS not in sys.path:
    sys.path.insert(0, SCRIPTS)

DELAYS_S = {
    "near first": ("0:6", 0.002),
    "far first": ("0:6", 0.080),
    "near last": ("6:12", 0.004),
    "far last": ("6:12", 0.090),
}
LONG_S = 0.4


async def test_the_near_nodes_are_taken_and_one_that_became_far_is_left(
    small_release: Path, local_swarm: Callable[[Path], Any]
) -> None:
    from benchmarks.wan import DelayingDoor

    swarm = local_swarm(small_release)
    await swarm.publish()
    async with AsyncExitStack() as stack:
        doors: dict[str, DelayingDoor] = {}
        for name, (span, delay_s) in DELAYS_S.items():
            door = doors[name] = await stack.enter_async_context(DelayingDoor(delay_s))
            peers = tuple(other.address for other in doors.values() if other is not door)
            node = await swarm.start(span, wait=False, advertise=door.address, peers=peers)
            door.lead_to(Address.parse(str((await node.event("listening"))["listen"])))
            await node.event("ready")
        names = {door.address: name for name, door in doors.items()}
        client = await stack.enter_async_context(swarm.client(peers=[str(address) for address in names]))

        async def taken() -> list[str]:
            return [names[hop.address] for hop in (await client.generate([5, 6, 7], GREEDY)).route.hops]

        async with asyncio.timeout(30.0):
            while await taken() != ["near first", "near last"]:
                pass
        doors["near first"].delay_s = LONG_S
        async with asyncio.timeout(30.0):  # `scripts/bench routes` says how long it takes
            while await taken() != ["far first", "near last"]:
                pass
