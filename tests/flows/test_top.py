"""`swarm top` over real nodes: it sees who serves what, how fast, and the hole that a killed node leaves."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from swarm.sampling import SamplingParams

DEADLINE_S = 60.0


class Top:
    """`swarm top --json` as a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def look_that(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The first look from here on for which this holds."""
        assert self._process.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            while True:
                line = await self._process.stdout.readline()
                assert line, f"top ended with {await self._process.wait()}"
                look: dict[str, Any] = json.loads(line)
                if holds(look):
                    return look

    async def interrupt(self) -> int:
        self._process.send_signal(signal.SIGINT)
        async with asyncio.timeout(DEADLINE_S):
            await self._process.communicate()
        assert self._process.returncode is not None
        return self._process.returncode


@asynccontextmanager
async def running_top(magnet: str, data_dir: Path, *args: str) -> AsyncIterator[Top]:
    where = ("--network", "loopback", "--data-dir", str(data_dir), "--interval", "0.2")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "swarm", "top", magnet, "--json", *where, *args,
        stdout=asyncio.subprocess.PIPE, limit=1 << 20,
    )  # fmt: skip
    try:
        yield Top(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_top_follows_a_swarm_through_a_loss(
    release: Callable[..., Path], local_swarm: Callable[[Path], Any], tmp_path: Path
) -> None:
    swarm = local_swarm(release("tiny-mixtral"))
    magnet = await swarm.publish()
    first, second = await asyncio.gather(swarm.start("0:3"), swarm.start("3:6"))
    async with running_top(magnet, tmp_path / "top") as top:
        whole = await top.look_that(lambda look: len(look["nodes"]) == 2)
        assert (whole["schema"], whole["event"], whole["missing_layers"]) == ("swarm.top/1", "look", [])
        assert [hop["layers"] for hop in whole["route"]["hops"]] == ["0:3", "3:6"]
        assert 0 < whole["free_sessions"] <= first.config.max_sessions

        async with swarm.client() as client:
            await client.generate([1, 2, 3], SamplingParams(max_tokens=8, ignore_eos=True))
        measured = await top.look_that(lambda look: look["tokens_per_s"] > 0)
        assert all(node["tokens_per_s"] >= measured["tokens_per_s"] for node in measured["nodes"])

        await second.kill()
        broken = await top.look_that(lambda look: bool(look["missing_layers"]))
        assert broken["missing_layers"] == [3, 4, 5]
        assert (broken["route"], broken["free_sessions"]) == (None, 0)
        assert await top.interrupt() == 0
