"""`swarm node start --dry-run`: what a machine would host, and why, before anything is fetched for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from node.app import NodeApp
from node.config import NodeConfig
from swarm.terms import Profile


async def test_it_says_what_it_would_host_and_why_and_leaves_no_trace(
    small_release: Path, local_swarm: Callable[[Path], Any], tmp_path: Path
) -> None:
    swarm = local_swarm(small_release)
    magnet = await swarm.publish()
    await swarm.start("0:7")
    config = NodeConfig(
        magnet=magnet, data_dir=tmp_path, profile=Profile("fp32"), device="cpu", network="loopback", upload_rate=10**6
    )
    events: list[str] = []
    fields = await NodeApp(config, lambda event, fields: events.append(event)).propose()
    assert fields["spans"] == ["0:12"] and fields["max_layers"] == 12
    assert "no other node hosts layers 7:12" in fields["reasons"]
    assert 0 < fields["layer_time_s"] < 1
    assert 0 < fields["throughput"] <= 10**6 / (4 * 32)
    assert "layout" not in events and "listening" not in events
    async with swarm.client() as client, asyncio.timeout(30.0):
        while not (nodes := (await client.status()).nodes):
            await asyncio.sleep(0.1)  # until the node's announcement has reached the DHT
        assert len(nodes) == 1
