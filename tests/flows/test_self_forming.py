"""A swarm that nobody assigns: nodes that know nothing but the magnet and one bootstrap cover the model, and heal."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from node.hosting.budget import RESERVED_SHARE
from swarm.facts import NodeFact, NodeState
from swarm.release import read_folder_layout
from swarm.routing import coverage
from swarm.sampling import SamplingParams
from swarm.terms import Address, Span

GREEDY = SamplingParams(max_tokens=8, temperature=0.0)
MB = 1 << 20
BUDGETS = (2, 3, 1, 4, 2, 5, 3, 1, 2, 6)
"""Layers that fit, of 12: any model is covered more than twice, but by no node alone."""


def memory_for(n_layers: int, folder: Path) -> int:
    """What --memory says for so many layers and the two ends, in fp32."""
    args = read_folder_layout(folder).args
    size = (2 * args.vocab_size * args.dim + n_layers * args.n_layer_params) * 4
    return int(size / (1 - RESERVED_SHARE)) + 1024


class History:
    """Every fact that one observer came to see, and what it shows of layers that were given up."""

    def __init__(self, discovery: Any, n_layers: int) -> None:
        self._discovery = discovery
        self._n_layers = n_layers
        self._last: dict[str, NodeFact] = {}
        self.orphaned: list[str] = []
        self.n_left = 0

    def look(self) -> tuple[int, ...]:
        """Note what changed -> hosts per layer, by the facts in force."""
        now = {fact.node_id: fact for fact in self._discovery.nodes()}
        for node_id, fact in now.items():
            before = self._last.get(node_id)
            if before is None or fact.state is NodeState.DRAINING:
                continue
            left = served(before) - served(fact)
            self.n_left += len(left)
            others = set().union(*(served(f) for n, f in now.items() if n != node_id))
            self.orphaned += [f"{node_id[:8]} left layer {idx} to nobody" for idx in sorted(left - others)]
        self._last = now
        return coverage(list(now.values()), self._n_layers, time.time())


def served(fact: NodeFact) -> set[int]:
    return {idx for span in fact.served_spans for idx in span}


def spans_of(node: Any) -> set[int]:
    """The layers that it last said it serves."""
    moved = node.events.get("moved", [])
    texts = (moved or node.events["ready"])[-1]["spans"]
    return {idx for text in texts for idx in Span.parse(text)}


def deadly(hosts: tuple[int, ...], spans: dict[Any, set[int]], budgets: dict[Any, int]) -> list[Any]:
    """Five nodes whose end leaves a hole, and enough room among the others to close it."""
    for five in itertools.combinations(spans, 5):
        left = [node for node in spans if node not in five]
        held = set().union(*(spans[node] for node in left))
        if len(held) < len(hosts) <= sum(budgets[node] for node in left):
            return list(five)
    raise AssertionError("no five of these nodes are enough")


async def watch_until(history: History, holds: Callable[[tuple[int, ...]], bool], timeout_s: float = 60.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not holds(history.look()):
            await asyncio.sleep(0.05)


@pytest.mark.timeout(240)
async def test_ten_nodes_cover_the_model_and_after_five_deaths_again(
    small_release: Path, local_swarm: Callable[[Path], Any]
) -> None:
    swarm = local_swarm(small_release)
    await swarm.publish()
    order = random.Random(7)
    budgets = list(BUDGETS)
    order.shuffle(budgets)
    first = await swarm.start(wait=False, memory_bytes=memory_for(budgets[0], small_release))
    bootstrap = (await first.event("listening"))["address"]
    peers = (Address.parse(str(bootstrap)),)
    nodes = [first] + [
        await swarm.start(wait=False, memory_bytes=memory_for(n, small_release), peers=peers) for n in budgets[1:]
    ]
    async with swarm.client(timeout_s=60.0, peers=[str(bootstrap)]) as client:
        history = History(client._discovery, 12)
        await watch_until(history, all)
        assert len((await client.generate([5, 6, 7], GREEDY)).ids) == 8
        await asyncio.gather(*(node.event("ready") for node in nodes))
        victims = deadly(
            history.look(), {node: spans_of(node) for node in nodes}, dict(zip(nodes, budgets, strict=True))
        )
        await asyncio.gather(*(node.kill() for node in victims))
        await watch_until(history, lambda hosts: len(client._discovery.nodes()) == 5 and all(hosts))
        assert len((await client.generate([5, 6, 7], GREEDY)).ids) == 8
        # What a mover takes is served before it leaves what it had.
        await watch_until(history, lambda hosts: history.n_left > 0 and all(hosts))
    assert history.orphaned == []


async def test_two_nodes_started_at_once_do_not_take_the_same_hole(
    small_release: Path, local_swarm: Callable[[Path], Any]
) -> None:
    swarm = local_swarm(small_release)
    await swarm.publish()
    first = await swarm.start("0:2")
    peers = (Address.parse(str(first.events["ready"][-1]["address"])),)
    room = memory_for(5, small_release)
    both = await asyncio.gather(*(swarm.start(memory_bytes=room, peers=peers) for _ in range(2)))
    spans = sorted(str(node.events["ready"][-1]["spans"]) for node in both)
    assert spans == ["['2:7']", "['7:12']"]


async def test_machines_too_small_for_a_layer_make_the_model_up_of_trunks_and_experts(
    speaking_release: Path, local_swarm: Callable[[Path], Any]
) -> None:
    swarm = local_swarm(speaking_release)
    await swarm.publish()
    args = read_folder_layout(speaking_release).args
    ends = 2 * args.vocab_size * args.dim
    room = (ends + args.n_trunk_params + args.n_expert_params) * 4  # a trunk and one of its two experts, in fp32
    memory_bytes = int(room / (1 - RESERVED_SHARE)) + 1024
    nodes = [await swarm.start(wait=False, memory_bytes=memory_bytes) for _ in range(7)]
    await asyncio.gather(*(node.event("ready") for node in nodes))
    assert all(not node.events["layout"][-1]["spans"] for node in nodes)
    async with swarm.client() as client:
        async with asyncio.timeout(30.0):
            while not all((await client.status()).hosts_per_layer):
                await asyncio.sleep(0.1)
        assert len((await client.generate([5, 6, 7], GREEDY)).ids) == 8


async def test_a_generation_goes_on_over_a_node_that_moved_to_the_hole(
    small_release: Path, local_swarm: Callable[[Path], Any]
) -> None:
    long_enough = SamplingParams(max_tokens=40, temperature=0.0)
    swarm = local_swarm(small_release)
    await swarm.publish()
    first = await swarm.start("0:6")
    peers = (Address.parse(str(first.events["ready"][-1]["address"])),)
    mover = await swarm.start(memory_bytes=memory_for(6, small_release), peers=peers)
    assert mover.events["ready"][-1]["spans"] == ["6:12"]
    async with swarm.client(timeout_s=60.0) as client:
        expected = (await client.generate([5, 6, 7], long_enough)).ids
        await swarm.start("6:12", peers=peers)
        stream = client.stream([5, 6, 7], long_enough)
        async with stream:
            async for token in stream:
                if token.index == 8:
                    await first.kill()
        assert stream.result.ids == expected
    assert (await mover.event("moved"))["spans"] == ["0:6"]
