"""routes: the route that a client chooses over links of unequal length against the best of all routes, each tried; and
how long after a link degrades new sessions go on over it.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from benchmarks.figures import Figure, take_turns
from benchmarks.wan import DelayingDoor
from node.app import NodeApp
from node.config import NodeConfig
from node.weights import PRESETS, write_release
from swarm.client import AsyncClient, connect_async
from swarm.facts import Hop, NodeFact, Route
from swarm.sampling import SamplingParams
from swarm.terms import Address, Profile, Span
from swarm.torrent import TorrentConfig, TorrentSession, create_torrent

BENCH = "routes"
DELAYS_S = {"0:6 near": 0.010, "0:6 far": 0.050, "6:12 near": 0.015, "6:12 far": 0.060, "0:12": 0.040}
"""One way to each node, by the layers that it hosts: two hops over near nodes beat the one node that has them all."""

DEGRADED_S = 0.300
N_TOKENS = 24
DEFAULT_ROUNDS = 5
FACTS_TIMEOUT_S = 60.0
AVOID_TIMEOUT_S = 60.0
ARGS = replace(PRESETS["demo"].args, dim=128, n_heads=4, n_kv_heads=2, head_dim=32, hidden_dim=256)


@dataclass
class _Wan:
    """Five nodes behind doors, and one client."""

    client: AsyncClient
    doors: dict[Address, DelayingDoor]


def run(work_dir: Path, n_rounds: int) -> list[Figure]:
    torch.set_num_threads(1)
    folder = work_dir / "narrow"
    write_release(ARGS, folder, dtype="fp32", tokenizer=PRESETS["demo"].tokenizer)
    return asyncio.run(_measure(folder, work_dir, n_rounds))


async def _measure(folder: Path, work_dir: Path, n_rounds: int) -> list[Figure]:
    async with AsyncExitStack() as stack:
        wan = await _open(stack, folder, work_dir)
        await _until_measured(wan.client)
        chosen = await _chosen(wan.client)
        routes = list(every_route(await _facts(wan.client), ARGS.n_layers))
        rounds = await take_turns({str(route): partial(_tokens_per_s, wan.client, route) for route in routes}, n_rounds)
        medians = {name: statistics.median(scores) for name, scores in rounds.items()}
        best = max(medians.values())
        mine = medians[str(chosen)]
        case = f"decode, {len(chosen.hops)} hops, the chosen route"
        figures = [Figure(BENCH, case, mine, "tok/s", f"best of {len(routes)} routes tried", best, mine / best)]
        chosen = await _chosen(wan.client)
        wan.doors[chosen.hops[0].address].delay_s = DEGRADED_S
        started_s = time.monotonic()
        async with asyncio.timeout(AVOID_TIMEOUT_S):
            while chosen.hops[0].address in [hop.address for hop in (await _chosen(wan.client)).hops]:
                await asyncio.sleep(0.1)
        avoided_s = time.monotonic() - started_s
        figures.append(Figure(BENCH, "a link degrades, until new sessions avoid it", avoided_s, "s"))
    return figures


async def _open(stack: AsyncExitStack, folder: Path, work_dir: Path) -> _Wan:
    torrent = create_torrent(folder, piece_size=256 << 10)
    seeder = await stack.enter_async_context(TorrentSession(TorrentConfig.loopback()))
    await seeder.seed(torrent, folder.parent, verified=True)
    magnet = str(torrent.magnet(peers=(Address("127.0.0.1", seeder.port),)))
    doors: dict[Address, DelayingDoor] = {}
    ready = []
    for name, delay_s in DELAYS_S.items():
        door = await stack.enter_async_context(DelayingDoor(delay_s))
        doors[door.address] = door
        config = NodeConfig(
            magnet=magnet, data_dir=work_dir / name.replace(":", "-"), spans=(Span.parse(name.split()[0]),),
            profile=Profile("fp32"), device="cpu", network="loopback", advertise=door.address,
            peers=tuple(doors), cache_budget_bytes=1 << 28, threads=1, drain_timeout_s=0.0,
        )  # fmt: skip
        ready.append(await _start(stack, config, door))
    await asyncio.gather(*(event.wait() for event in ready))
    client = connect_async(magnet, network="loopback", peers=[str(a) for a in doors], data_dir=work_dir / "client")
    return _Wan(await stack.enter_async_context(client), doors)


async def _start(stack: AsyncExitStack, config: NodeConfig, door: DelayingDoor) -> asyncio.Event:
    """A node behind the door -> an event that is set when it serves."""
    ready, stop = asyncio.Event(), asyncio.Event()

    def on_event(event: str, fields: dict[str, object]) -> None:
        if event == "listening":
            door.lead_to(Address.parse(str(fields["listen"])))
        elif event == "ready":
            ready.set()

    running = asyncio.create_task(NodeApp(config, on_event).run(stop))

    async def end() -> None:
        stop.set()
        await asyncio.gather(running, return_exceptions=True)

    stack.push_async_callback(end)
    return ready


async def _until_measured(client: AsyncClient) -> None:
    """Until every node says how far it is from each other one."""
    async with asyncio.timeout(FACTS_TIMEOUT_S):
        while not all(len(fact.rtts) >= len(DELAYS_S) - 1 for fact in await _facts(client)):
            await asyncio.sleep(0.1)


async def _facts(client: AsyncClient) -> list[NodeFact]:
    while len(facts := (await client.status()).nodes) < len(DELAYS_S):
        await asyncio.sleep(0.1)
    return list(facts)


async def _chosen(client: AsyncClient) -> Route:
    """Where a new session would go."""
    assert client._finder is not None
    return await client._finder.find(Profile("fp32"))


def every_route(facts: list[NodeFact], n_layers: int, start: int = 0) -> Iterator[Route]:
    """All routes that cut where a span begins or ends, and take each node once."""
    edges = sorted({edge for fact in facts for span in fact.served_spans for edge in (span.start, span.end)})

    def rest(at: int, used: frozenset[str]) -> Iterator[tuple[Hop, ...]]:
        if at == n_layers:
            yield ()
        for fact in facts:
            for end in edges:
                if at < end and fact.node_id not in used and fact.served_spans[0].covers(Span(at, end)):
                    for hops in rest(end, used | {fact.node_id}):
                        yield (Hop(fact.node_id, fact.address, Span(at, end)), *hops)

    return (Route(hops, Profile("fp32")) for hops in rest(start, frozenset()))


async def _tokens_per_s(client: AsyncClient, route: Route) -> float:
    """Decoding along this route, whatever the client would choose."""
    assert client._finder is not None
    free = client._finder.find

    async def find(profile: Profile | None, broken: Route | None = None) -> Route:
        return route

    client._finder.find = find  # type: ignore[method-assign]
    try:
        stream = client.stream(list(range(5, 13)), SamplingParams(max_tokens=N_TOKENS, temperature=0.0))
        async with stream:
            times = [time.perf_counter() async for _ in stream]
    finally:
        client._finder.find = free  # type: ignore[method-assign]
    return (len(times) - 1) / (times[-1] - times[0])
