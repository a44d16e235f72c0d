"""How soon a node that died, stopped, fell silent or hangs is noticed by who calls it or waits for its results."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from swarm.errors import NodeUnreachable
from swarm.facts import Hop
from swarm.identity import NodeKey, issue
from swarm.messages import Open, Opened
from swarm.rpc import Dialer, RpcConfig
from swarm.sampling import SamplingParams
from swarm.terms import Address, SessionId, Span

N_TRIES = 3
"""A machine that does something else at the moment only makes it later: the best of some tries is the mechanism's."""

DEADLINE_S = 60.0


@pytest.fixture
async def herd(release: Callable[..., Path]) -> AsyncIterator[Any]:
    from benchmarks.herd import Herd

    async with Herd(release("tiny-mixtral"), "fp32") as herd:
        yield herd


class Watched:
    """A session of one hop, whose Run and Results streams are watched."""

    def __init__(self, herd: Any, sheep: Any, address: Address) -> None:
        self._tls = issue(NodeKey.generate())
        self._dialer = Dialer(self._tls, RpcConfig.loopback())
        self._sheep, self._address = sheep, address
        from benchmarks.nursery import RELEASE

        hops = (Hop(sheep.node_id, address, Span(0, herd.args.n_layers)),)
        self._opening = Open(SessionId("cd" * 16), 1, RELEASE, self._tls.node_id, hops, 0, herd.profile, 64, 1)

    async def open(self) -> list[asyncio.Task[float]]:
        """-> for the Run stream and the Results: when each is seen to be broken."""
        connection = await self._dialer.connect(self._address, self._sheep.node_id)
        replies = connection.run(self._opening).replies()
        assert isinstance(await anext(replies), Opened)
        results = connection.results(self._opening.session_id, 1)

        async def broken(stream: AsyncIterator[Any]) -> float:
            with pytest.raises(NodeUnreachable):
                await anext(stream)
            return time.monotonic()

        return [asyncio.create_task(broken(stream)) for stream in (replies, results)]

    async def close(self) -> None:
        await self._dialer.close()


async def noticed(herd: Any, strike: Callable[[Any, Any], Any], wire_to: Any) -> float:
    """Seconds from the fault to when both streams are seen to be broken, the best of N_TRIES."""
    best_s = DEADLINE_S
    for _ in range(N_TRIES):
        sheep = await herd.bear(Span(0, herd.args.n_layers))
        async with wire_to(sheep.address) as wire:
            watched = Watched(herd, sheep, wire.address)
            seen = await watched.open()
            struck_s = time.monotonic()
            struck_s = await strike(sheep, wire) or struck_s
            async with asyncio.timeout(DEADLINE_S):
                best_s = min(best_s, max(await asyncio.gather(*seen)) - struck_s)
            await watched.close()
        sheep.kill()
    return best_s


async def test_a_killed_process_is_noticed_at_once(herd: Any, wire_to: Any) -> None:
    async def kill(sheep: Any, wire: Any) -> float:
        sheep.kill()
        await sheep.died.wait()
        return time.monotonic()

    assert await noticed(herd, kill, wire_to) <= 0.2


@pytest.mark.parametrize("fault", ["stopped", "its answers are lost", "all packets are lost"])
async def test_a_silent_one_is_noticed_within_three_seconds(herd: Any, wire_to: Any, fault: str) -> None:
    async def silence(sheep: Any, wire: Any) -> None:
        if fault == "stopped":
            sheep.signal(signal.SIGSTOP)
        wire.from_node = fault == "stopped"
        wire.to_node = fault != "all packets are lost"

    assert await noticed(herd, silence, wire_to) <= 3.0


@pytest.mark.parametrize("hop_idx", [0, 2])
async def test_a_process_that_hangs_while_its_connection_stands_is_routed_around(
    herd: Any, monkeypatch: pytest.MonkeyPatch, hop_idx: int
) -> None:
    """Its gRPC answers pings from threads of its own: what does not answer is Python."""
    monkeypatch.setattr("swarm.rpc.connection.PULSE_S", 0.2)
    monkeypatch.setattr(herd._dialer, "_config", replace(RpcConfig.loopback(), silent_s=2.0))
    spans = (Span(0, 2), Span(2, 4), Span(4, 6))
    params = SamplingParams(max_tokens=12, temperature=1.0, seed=3, ignore_eos=True)
    sheep = [await herd.bear(span) for span in spans]
    undisturbed = [event.id async for event in herd.loop([5, 6, 7], params).events()]
    herd.bury(sheep[hop_idx])
    hanging = await herd.bear(spans[hop_idx], hang=1.0)
    loop = herd.loop([5, 6, 7], params)

    async def come_to_help() -> None:
        while not herd.noticed_s:
            await asyncio.sleep(0.05)
        await herd.bear(spans[hop_idx])

    helping = asyncio.create_task(come_to_help())
    ids = [event.id async for event in loop.events()]
    await helping
    assert ids == undisturbed
    assert loop.generation.timings.n_replays >= 1
    route = loop.generation.route
    assert route is not None and hanging.node_id not in [hop.node_id for hop in route.hops]
