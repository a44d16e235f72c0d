"""A node that nobody hears, while it hears all, for half a minute: the others go on, and nothing is done twice."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from swarm.sampling import SamplingParams
from swarm.terms import Address

PARTITION_S = 30.0
AGREE_S = 10.0
SPANS = ("0:2", "2:4", "2:4", "4:6")
PROMPT = [(7 * i) % 300 + 3 for i in range(60)]
PARAMS = SamplingParams(max_tokens=40, temperature=1.0, seed=17, ignore_eos=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.timeout(180)
async def test_a_node_that_nobody_reaches_commits_nothing_and_is_found_again(
    release: Callable[..., Path], local_swarm: Callable[[Path], Any], wire_to: Any
) -> None:
    swarm = local_swarm(release("tiny-mixtral"))
    await swarm.publish()
    async with AsyncExitStack() as stack:
        wires, nodes = [], []
        for span in SPANS:
            listen = Address("127.0.0.1", free_port())
            wires.append(await stack.enter_async_context(wire_to(listen)))
            peers = tuple(wire.address for wire in wires[:-1])
            nodes.append(await swarm.start(span, listen=listen, advertise=wires[-1].address, peers=peers))
        by_address = {str(wire.address): wire for wire in wires}
        async with swarm.client(peers=[str(wires[0].address)]) as client:
            undisturbed = await client.generate(PROMPT, PARAMS)
            assert undisturbed.timings.n_replays == 0
            seen: list[int] = []
            async with client.stream(PROMPT, PARAMS) as stream:
                async for event in stream:
                    assert event.index == len(seen)
                    seen.append(event.id)
                    if event.index == 10:
                        cut = stream.result.route.hops[1]
                        by_address[str(cut.address)].from_node = False  # it hears all, and nobody hears it
                        cut_s = asyncio.get_running_loop().time()
                        lost = node_at(nodes, cut.address)
                        await until(lambda lost=lost: lost.n_sessions == 0, 30.0)
                result = stream.result
            assert tuple(seen) == result.ids == undisturbed.ids
            assert cut.node_id not in [hop.node_id for hop in result.route.hops]

            while (left_s := cut_s + PARTITION_S - asyncio.get_running_loop().time()) > 0:
                again = await client.generate(PROMPT, PARAMS)  # as often as there is time
                assert again.ids == undisturbed.ids
                await asyncio.sleep(min(2.0, max(0.0, left_s)))
            by_address[str(cut.address)].from_node = True
            await until(lambda: all(view(node) == set(by_address) for node in nodes), AGREE_S)
            assert (await client.generate(PROMPT, PARAMS)).ids == undisturbed.ids
            await until(lambda: not any(node.n_sessions for node in nodes), 30.0)


async def until(condition: Callable[[], bool], deadline_s: float) -> None:
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.05)


def node_at(nodes: list[Any], address: Address) -> Any:
    return next(node for node in nodes if node.config.advertise == address)


def view(node: Any) -> set[str]:
    """The nodes that it knows, itself included."""
    running = node._app._node
    return {str(fact.address) for fact in running.discovery.nodes()} | {str(node.config.advertise)}
