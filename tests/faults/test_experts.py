"""Hosts of experts that die under a generation: with a replica nobody notices, without one it waits and goes on."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swarm.cli.release_plan import parse_experts
from swarm.errors import ExpertUnavailable, LayersUncovered
from swarm.sampling import SamplingParams
from swarm.terms import Address, Span

PROMPT = [(7 * i) % 500 + 3 for i in range(60)]
GREEDY = SamplingParams(max_tokens=60, temperature=0.0, ignore_eos=True)
LOW, HIGH = "0-5:0-3", "0-5:4-7"


def host_of(cli: Any, swarm: Any, name: str, peer: Address) -> Any:
    return cli.node(swarm.magnet, name, "--experts", LOW, "--dtype", "fp32", "--peer", peer)


async def started(cli: Any, swarm: Any, n_hosts: int) -> tuple[Any, list[Any], str]:
    """A trunk here, the higher experts here, hosts of the lower ones as processes -> (trunk, hosts, whom to ask)."""
    trunk = await swarm.start(trunks=(Span(0, 6),))
    address = str(trunk.events["ready"][-1]["address"])
    peer = Address.parse(address)
    hosts = [host_of(cli, swarm, f"host-{i}", peer) for i in range(n_hosts)]
    await swarm.start(experts=tuple(parse_experts(HIGH)), peers=(peer,))
    for host in hosts:
        await asyncio.to_thread(host.wait_for, "ready", 60.0)
    return trunk, hosts, address


async def test_with_a_replica_a_killed_host_changes_no_token_and_makes_no_pause(
    cli: Any, release: Callable[..., Path], local_swarm: Callable[[Path], Any]
) -> None:
    swarm = local_swarm(release("tiny-mixtral"))
    await swarm.publish()
    trunk, hosts, address = await started(cli, swarm, 2)
    by_id = {host.events[0]["node_id"]: host for host in hosts}
    async with swarm.client(peers=[address]) as client:
        undisturbed = (await client.generate(PROMPT, GREEDY)).ids
        async with client.stream(PROMPT, GREEDY) as stream:
            seen = [(await anext(stream)).id for _ in range(5)]
            before = Counter(trunk.asked)
            seen += [(await anext(stream)).id for _ in range(5)]
            lately = trunk.asked - before
            victim = by_id[max(by_id, key=lambda node_id: lately[node_id])]
            victim.signal(signal.SIGKILL)
            gaps, last_s = [], time.monotonic()
            async for event in stream:
                seen.append(event.id)
                gaps.append(time.monotonic() - last_s)
                last_s = time.monotonic()
            assert stream.result.timings.n_replays == 0
    assert tuple(seen) == undisturbed
    assert max(gaps) < 1.0
    assert victim.status() == -signal.SIGKILL


async def test_without_a_replica_the_error_comes_soon_and_the_generation_goes_on_with_a_new_host(
    cli: Any, release: Callable[..., Path], local_swarm: Callable[[Path], Any], caplog: pytest.LogCaptureFixture
) -> None:
    swarm = local_swarm(release("tiny-mixtral"))
    await swarm.publish()
    _, (victim,), address = await started(cli, swarm, 1)
    caplog.set_level(logging.INFO, "swarm.client")
    async with swarm.client(peers=[address], timeout_s=40.0) as client:
        undisturbed = (await client.generate(PROMPT, GREEDY)).ids
        async with client.stream(PROMPT, GREEDY) as stream:
            seen = [(await anext(stream)).id for _ in range(10)]
            victim.signal(signal.SIGKILL)
            killed_s = time.time()
            rest = asyncio.create_task(anext(stream))
            async with asyncio.timeout(10):
                while not (lost := [r for r in caplog.records if "has no host" in r.getMessage()]):
                    await asyncio.sleep(0.01)
            assert lost[0].created - killed_s < 2.0
            replacement = host_of(cli, swarm, "replacement", Address.parse(address))
            seen.append((await rest).id)
            seen += [event.id async for event in stream]
            assert stream.result.timings.n_replays >= 1
        assert tuple(seen) == undisturbed
        replacement.signal(signal.SIGKILL)
        replacement.status()
    async with swarm.client(peers=[address], timeout_s=3.0) as client:
        with pytest.raises((ExpertUnavailable, LayersUncovered), match=r"layer \d expert [0-3] has no host"):
            await client.generate(PROMPT, GREEDY)
