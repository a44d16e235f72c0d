"""Streams of completions, asked for and counted from outside: what a turn of several at once took.

Takes what comes as it comes, and counts in it how often a token is told, so that it costs little beside what it
measures, and the same for every door: server-sent events of a gateway, plain lines of `gateway_peer`.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

PROMPT = "Tell me a story about a fox."
TOLD = b'"finish_reason":null'
"""What every piece of an answer with text has once."""
START_TIMEOUT_S = 120.0

Arrivals = tuple[list[float], int]
"""When each piece of an answer came, in seconds since it was asked for; and how many tokens it had."""


@dataclass(slots=True)
class Turn:
    """What one turn of streams took. Seconds; gaps: between one stream's tokens. n_tokens: of each, by its seed.

    first_token_s: of those that began together. joined_s: of those that joined the others.
    door_ms, all_ms: processor time per token, of the process that streams and of every process on the way.
    """

    tokens_per_s: float
    door_ms: float
    all_ms: float
    first_token_s: list[float]
    joined_s: list[float]
    gaps_s: list[float]
    n_tokens: list[int]


@dataclass(frozen=True, slots=True)
class Door:
    """A process that answers at url. behind: the processes that it has its tokens from."""

    pid: int
    url: str
    model: str
    behind: tuple[int, ...] = ()


def cpu_s(pids: Sequence[int]) -> float:
    """What processes have used of the processor, user and system. Source: proc(5), fields 14 and 15 of stat."""
    stats = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids)
    return sum(int(fields[11]) + int(fields[12]) for fields in stats) / os.sysconf("SC_CLK_TCK")


async def take_turn(door: Door, n_streams: int, n_tokens: int) -> Turn:
    """All streams begin at one moment; each, when it ends, asks once more, at moments that are spread over the turn."""
    everybody = (door.pid, os.getpid(), *door.behind)
    started_s, started_door_s, started_all_s = time.perf_counter(), cpu_s([door.pid]), cpu_s(everybody)
    streams = await asyncio.gather(*(_two_answers(door, i, n_streams, n_tokens) for i in range(n_streams)))
    took_s = time.perf_counter() - started_s
    counts = [n for first, second in streams for n in (first[1], second[1])]
    return Turn(
        tokens_per_s=sum(counts) / took_s,
        door_ms=1000 * (cpu_s([door.pid]) - started_door_s) / sum(counts),
        all_ms=1000 * (cpu_s(everybody) - started_all_s) / sum(counts),
        first_token_s=[first[0][0] for first, _ in streams],
        joined_s=[second[0][0] for _, second in streams],
        gaps_s=[b - a for pair in streams for arrivals, _ in pair for a, b in pairwise(arrivals)],
        n_tokens=counts,
    )


async def until_ready(door: Door) -> None:
    """Until every layer has a host. Raises: TimeoutError."""
    parts = urlsplit(door.url)
    async with asyncio.timeout(START_TIMEOUT_S):
        while True:
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.write(f"GET /ready HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode())
            status = await reader.readline()
            writer.close()
            if b" 200 " in status:
                return
            await asyncio.sleep(0.1)


async def _two_answers(door: Door, stream_idx: int, n_streams: int, n_tokens: int) -> tuple[Arrivals, Arrivals]:
    """One after the other, of n_tokens together: the first the longer the later its stream is in the row."""
    n_first = round(n_tokens * (0.25 + 0.5 * (stream_idx + 0.5) / n_streams))
    first = await _arrivals(door, stream_idx, n_first)
    return first, await _arrivals(door, n_streams + stream_idx, n_tokens - n_first)


async def _arrivals(door: Door, seed: int, n_tokens: int) -> Arrivals:
    """Tokens are counted by the usage that ends the stream: one that adds no text has no piece of its own."""
    asked = {
        "model": door.model, "prompt": PROMPT, "max_tokens": n_tokens, "stream": True, "seed": seed,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    arrived: list[float] = []
    received = bytearray()
    started_s = time.perf_counter()
    async for data in _pieces(door.url, asked):
        now_s = time.perf_counter()
        n_before = max(0, len(received) - len(TOLD) + 1)
        received += data
        arrived += [now_s - started_s] * received.count(TOLD, n_before)
    n_told = re.search(rb'"completion_tokens":(\d+)', received)
    if not arrived or n_told is None:
        raise RuntimeError(f"{door.url} did not stream an answer")
    return arrived, int(n_told[1])


async def _pieces(url: str, asked: dict[str, object]) -> AsyncIterator[bytes]:
    """The answer, as it comes."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        body = json.dumps(asked).encode()
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
            f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        while data := await reader.read(1 << 16):
            yield data
    finally:
        writer.close()
