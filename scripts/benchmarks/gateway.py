"""gateway: what the HTTP front door costs, on the way of every token and on the way to the first.

The peer is the Python client in the gateway's place: a process of its own with the same release, over the same nodes.
Both stream the same prompts with the same seeds, 1, 8 and 32 at once, in short turns that alternate. In a turn all
streams begin at one moment, which shows how a rush is taken; each then asks once more, at moments that are spread over
the turn, which shows what somebody who joins the others waits for. What asks and
counts lives in this process: it reads lines, server-sent events of the one and plain lines of the other
(`gateway_peer`), and what it spends on the longer ones counts against the gateway. The release is the embedded one, a
few milliseconds a token, so that what the gateway adds is not lost in the model's time: over a larger model the same
cost is a smaller share. The processor's time per token is told as well: a load from outside does not change it much.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.figures import Figure, faster, take_turns
from benchmarks.processes import Processes, serving
from swarm.cli.local_swarm import split_layers
from swarm.cli.processes import Child, stop_all
from swarm.embedded import NAME, release_folder
from swarm.release import read_folder_layout

BENCH = "gateway"
PEER = "the Python client"
LOADS = ((1, 64, 3), (8, 32, 1), (32, 24, 1))
"""(streams at once, tokens of each, turns to a round): a turn of one stream is short, and takes more of them."""
N_NODES = 3
PROMPT = "Tell me a story about a fox."
DEFAULT_ROUNDS = 6
START_TIMEOUT_S = 120.0


Arrivals = tuple[list[float], int]
"""When each piece of an answer came, in seconds since it was asked for; and how many tokens it had."""


@dataclass(slots=True)
class Turn:
    """What one turn of streams took. Seconds; gaps: between one stream's tokens. n_tokens: of each, by its seed.

    first_token_s: of those that began together. joined_s: of those that joined the others.
    """

    tokens_per_s: float
    cpu_ms_per_token: float
    first_token_s: list[float]
    joined_s: list[float]
    gaps_s: list[float]
    n_tokens: list[int]


@dataclass(frozen=True, slots=True)
class Door:
    """A process that answers at url."""

    pid: int
    url: str

    @property
    def cpu_s(self) -> float:
        """What it has used of the processor, user and system. Source: proc(5), fields 14 and 15 of stat."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run(work_dir: Path, n_rounds: int) -> list[Figure]:
    folder = Path(shutil.copytree(release_folder(), work_dir / NAME))  # seeding leaves a .torrent beside it
    spans = [str(span) for span in split_layers(read_folder_layout(folder).args.n_layers, N_NODES)]
    with Processes(work_dir) as processes:
        _, magnet = processes.seed(folder)
        with serving(processes, magnet, spans, "bf16"):
            children = _front_doors(work_dir, magnet)
            try:
                doors = [
                    Door(child.pid, str(child.wait_for("listening", START_TIMEOUT_S)["url"])) for child in children
                ]
                return asyncio.run(_measure(doors[0], doors[1], n_rounds))
            finally:
                stop_all(children)


def _front_doors(work_dir: Path, magnet: str) -> list[Child]:
    where = ("--network", "loopback", "--listen", "127.0.0.1:0", "--json")
    gateway = ("gateway", magnet, *where, "--no-ledger", "--data-dir", str(work_dir / "gateway"))
    peer = (magnet, str(work_dir / "peer"))
    return [
        Child("gateway", gateway, work_dir / "gateway.log"),
        Child("peer", peer, work_dir / "peer.log", module="benchmarks.gateway_peer"),
    ]


async def _measure(gateway: Door, peer: Door, n_rounds: int) -> list[Figure]:
    await _until_ready(gateway.url)
    figures: list[Figure] = []
    for n_streams, n_tokens, n_turns in LOADS:
        turns: dict[str, list[Turn]] = {BENCH: [], PEER: []}

        async def turn(name: str, door: Door, load: tuple[int, int], turns: dict[str, list[Turn]]) -> float:
            turns[name].append(await _turn(door, *load))
            return turns[name][-1].tokens_per_s

        rounds = await take_turns(
            {
                name: partial(turn, name, door, (n_streams, n_tokens), turns)
                for name, door in ((BENCH, gateway), (PEER, peer))
            },
            n_rounds * n_turns,
        )
        if turns[BENCH][-1].n_tokens != turns[PEER][-1].n_tokens:
            raise RuntimeError("the gateway and the client gave answers of different lengths to the same seeds")
        figures += _figures(n_streams, rounds, {name: took[1:] for name, took in turns.items()})
    return figures


def _figures(n_streams: int, rounds: dict[str, list[float]], turns: dict[str, list[Turn]]) -> list[Figure]:
    case = f"{n_streams} stream{'s' if n_streams > 1 else ''}"
    ours, peers = turns[BENCH], turns[PEER]
    return [
        faster(BENCH, case, "tok/s", rounds[BENCH], PEER, rounds[PEER]),
        *_cpu(case, ours, peers),
        *_first_token(f"joining, {case}", [t.joined_s for t in ours], [t.joined_s for t in peers]),
        *_first_token(f"together, {case}", [t.first_token_s for t in ours], [t.first_token_s for t in peers]),
        _latency(f"between tokens p50, {case}", [t.gaps_s for t in ours], [t.gaps_s for t in peers], 0.5),
        _latency(f"between tokens p99, {case}", [t.gaps_s for t in ours], [t.gaps_s for t in peers], 0.99),
    ]


def _first_token(case: str, ours: Sequence[list[float]], peers: Sequence[list[float]]) -> list[Figure]:
    """What is added is the median over the turns of the difference of their medians: load drifts between them."""
    added_ms = statistics.median(
        1000 * (statistics.median(a) - statistics.median(b)) for a, b in zip(ours, peers, strict=True)
    )
    return [
        Figure(BENCH, f"first token added, {case}", added_ms, "ms"),
        _latency(f"first token, {case}", ours, peers, 0.5),
    ]


def _cpu(case: str, ours: Sequence[Turn], peers: Sequence[Turn]) -> list[Figure]:
    """Of the process that streams, the means of all turns: the clock that counts it ticks a hundred times a second."""
    value, peer = (statistics.mean(turn.cpu_ms_per_token for turn in turns) for turns in (ours, peers))
    return [
        Figure(BENCH, f"processor time per token, {case}", value, "ms", PEER, peer, peer / value),
        Figure(BENCH, f"processor time added per token, {case}", value - peer, "ms"),
    ]


def _latency(case: str, ours: Sequence[list[float]], peers: Sequence[list[float]], share: float) -> Figure:
    """Of all turns together, in ms; a ratio above 1 is quicker than the peer."""
    value, peer = (1000 * _quantile([s for turn in turns for s in turn], share) for turns in (ours, peers))
    return Figure(BENCH, case, value, "ms", PEER, peer, peer / value)


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


async def _turn(door: Door, n_streams: int, n_tokens: int) -> Turn:
    started_s, started_cpu_s = time.perf_counter(), door.cpu_s
    streams = await asyncio.gather(*(_two_answers(door.url, i, n_streams, n_tokens) for i in range(n_streams)))
    took_s = time.perf_counter() - started_s
    counts = [n for first, second in streams for n in (first[1], second[1])]
    return Turn(
        tokens_per_s=sum(counts) / took_s,
        cpu_ms_per_token=1000 * (door.cpu_s - started_cpu_s) / sum(counts),
        first_token_s=[first[0][0] for first, _ in streams],
        joined_s=[second[0][0] for _, second in streams],
        gaps_s=[b - a for pair in streams for arrivals, _ in pair for a, b in pairwise(arrivals)],
        n_tokens=counts,
    )


async def _two_answers(url: str, stream_idx: int, n_streams: int, n_tokens: int) -> tuple[Arrivals, Arrivals]:
    """One after the other, of n_tokens together: the first the longer the later its stream is in the row."""
    n_first = round(n_tokens * (0.25 + 0.5 * (stream_idx + 0.5) / n_streams))
    first = await _arrivals(url, stream_idx, n_first)
    return first, await _arrivals(url, n_streams + stream_idx, n_tokens - n_first)


async def _arrivals(url: str, seed: int, n_tokens: int) -> Arrivals:
    """Tokens are counted by the usage that ends the stream: one that adds no text has no piece of its own."""
    asked = {
        "model": NAME, "prompt": PROMPT, "max_tokens": n_tokens, "stream": True, "seed": seed,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    arrived: list[float] = []
    usage = b""
    started_s = time.perf_counter()
    async for line in _lines(url, asked):
        if b'"finish_reason":null' in line:
            arrived.append(time.perf_counter() - started_s)
        elif b'"completion_tokens":' in line:
            usage = line
    n_told = re.search(rb'"completion_tokens":(\d+)', usage)
    if not arrived or n_told is None:
        raise RuntimeError(f"{url} did not stream an answer")
    return arrived, int(n_told[1])


async def _lines(url: str, asked: dict[str, object]) -> AsyncIterator[bytes]:
    """The lines of the answer's body, as they come."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        body = json.dumps(asked).encode()
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
            f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        while line := await reader.readline():
            yield line
    finally:
        writer.close()


async def _until_ready(url: str) -> None:
    parts = urlsplit(url)
    async with asyncio.timeout(START_TIMEOUT_S):
        while True:
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.write(f"GET /ready HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode())
            status = await reader.readline()
            writer.close()
            if b" 200 " in status:
                return
            await asyncio.sleep(0.1)
