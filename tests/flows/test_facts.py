"""The facts flow: what a node says of itself reaches those who ask, by any of the ways to ask, and stops being true
in time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swarm.client import SwarmStatus
from swarm.errors import LayersUncovered, NoNodesFound
from swarm.facts import NodeState
from swarm.sampling import SamplingParams
from swarm.terms import Address, Span

GREEDY = SamplingParams(max_tokens=4, temperature=0.0, ignore_eos=True)


async def status_that(client: Any, holds: Callable[[SwarmStatus], bool]) -> SwarmStatus:
    async with asyncio.timeout(30):
        while not holds(status := await client.status()):
            await asyncio.sleep(0.05)
    return status


async def test_the_magnet_alone_leads_to_every_node(
    release: Callable[..., Path], local_swarm: Callable[[Path], Any]
) -> None:
    swarm = local_swarm(release("tiny-mixtral"))
    await swarm.publish()
    await asyncio.gather(*(swarm.start(span) for span in ("0:2", "2:4", "4:6")))
    async with swarm.client() as client:
        status = await status_that(client, lambda s: len(s.nodes) == 3)
    assert sorted(str(span) for node in status.nodes for span in node.spans) == ["0:2", "2:4", "4:6"]
    assert {node.state for node in status.nodes} == {NodeState.SERVING}
    assert status.hosts_per_layer == (1,) * 6


async def test_one_named_peer_is_enough_without_any_dht(
    release: Callable[..., Path], local_swarm: Callable[[Path], Any]
) -> None:
    """The client knows the infohash and one node's address: no seeder, no DHT bootstrap, nothing else."""
    from swarm.torrent import Magnet

    swarm = local_swarm(release("tiny-mixtral"))
    await swarm.publish()
    first, _ = await asyncio.gather(swarm.start("0:3"), swarm.start("3:6"))
    address = str((await first.event("ready"))["address"])
    swarm.magnet = f"magnet:?xt=urn:btih:{Magnet.parse(swarm.magnet).infohash}"
    async with swarm.client(peers=[address]) as client:
        generation = await client.generate([5, 6, 7], GREEDY)
    assert [str(hop.span) for hop in generation.route.hops] == ["0:3", "3:6"]


async def test_the_layers_that_are_loaded_serve_while_the_rest_cannot_come_yet(
    release: Callable[..., Path], local_swarm: Callable[[Path], Any]
) -> None:
    """The seeder leaves once the joining node has layers 0:2, and the other node gives one byte a second."""
    swarm = local_swarm(release("tiny-mixtral"))
    await swarm.publish(piece_size=16 << 10)
    whole = await swarm.start("0:6")
    async with swarm.client() as client:
        expected = await client.generate([5, 6, 7], GREEDY)
    await whole.stop()
    first = await swarm.start("0:2", "5:6")  # which has the heads of all files
    await first.stop()
    await swarm.stop_seeding()
    serving = await swarm.start("2:6", upload_rate=1, data_dir=whole.config.data_dir)
    at = str((await serving.event("ready"))["address"])
    joining = await swarm.start("0:6", wait=False, data_dir=first.config.data_dir, peers=(Address.parse(at),))
    assert (await joining.event("serving"))["loaded_spans"]
    async with swarm.client(peers=[at]) as client:
        status = await status_that(client, lambda s: s.hosts_per_layer == (1,) * 6)
        assert [n.loaded_spans for n in status.nodes if n.state is NodeState.JOINING] == [(Span(0, 2),)]
        generation = await client.generate([5, 6, 7], GREEDY)
    assert [str(hop.span) for hop in generation.route.hops] == ["0:2", "2:6"]
    assert generation.ids == expected.ids
    assert "ready" not in joining.events


async def test_a_joining_node_is_seen_but_not_routed_to(
    release: Callable[..., Path], local_swarm: Callable[[Path], Any]
) -> None:
    swarm = local_swarm(release("demo", dtype="bf16"))
    await swarm.publish()
    await swarm.start("6:12", wait=False, download_rate=200_000)
    await swarm.start("0:6")
    async with swarm.client(timeout_s=6.0) as client:
        status = await status_that(client, lambda s: any(n.state is NodeState.JOINING and n.spans for n in s.nodes))
        assert status.missing_layers == (6, 7, 8, 9, 10, 11)
        with pytest.raises(LayersUncovered, match="6") as missing:
            await client.generate("Hello", GREEDY)
    assert missing.value.layers == (6, 7, 8, 9, 10, 11)


async def test_a_node_that_left_is_routed_around_and_forgotten(
    release: Callable[..., Path], local_swarm: Callable[[Path], Any]
) -> None:
    swarm = local_swarm(release("tiny-mixtral"))
    await swarm.publish()
    nodes = await asyncio.gather(swarm.start("0:6"), swarm.start("0:6"))
    async with swarm.client() as client:
        await status_that(client, lambda s: len(s.nodes) == 2)
        before = await client.generate([5, 6, 7], GREEDY)
        gone = before.route.hops[0]
        for node in nodes:
            if str((await node.event("ready"))["address"]) == str(gone.address):
                await node.kill()
        after = await client.generate([5, 6, 7], GREEDY)
        assert after.ids == before.ids
        assert after.route.hops[0].node_id != gone.node_id
        status = await status_that(client, lambda s: len(s.nodes) == 1)
        assert status.nodes[0].node_id == after.route.hops[0].node_id


async def test_no_node_at_all_says_what_was_tried(
    release: Callable[..., Path], local_swarm: Callable[[Path], Any]
) -> None:
    swarm = local_swarm(release("tiny-mixtral"))
    await swarm.publish()
    async with swarm.client(timeout_s=1.0, peers=["127.0.0.1:9"]) as client:
        with pytest.raises(NoNodesFound, match=r"127\.0\.0\.1:9.*DHT|DHT.*127\.0\.0\.1:9"):
            await client.generate([5, 6, 7], GREEDY)
