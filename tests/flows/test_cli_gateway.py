"""`swarm gateway` as its operator meets it: it listens, answers, tells what it served, and ends when it is told to."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from swarm.cli.gateway import parse_rate
from swarm.cli.processes import Child
from swarm.errors import BadArgument
from swarm.gateway.operations.usage import read_usage

END_S = 60.0


async def test_it_serves_accounts_and_ends(
    speaking_release: Path, local_swarm: Callable[[Path], Any], tmp_path: Path
) -> None:
    swarm = local_swarm(speaking_release)
    await swarm.publish()
    await swarm.start("0:3")
    ledger = tmp_path / "usage.sqlite"
    arguments = ("--listen", "127.0.0.1:0", "--network", "loopback", "--json", "--ledger", str(ledger))
    gateway = Child("gateway", ("gateway", swarm.magnet, *arguments, "--data-dir", str(tmp_path)), tmp_path / "log")
    try:
        listening = await asyncio.to_thread(gateway.wait_for, "listening", 120)
        async with httpx.AsyncClient(base_url=listening["url"], timeout=120) as http:
            async with asyncio.timeout(120):
                while (await http.get("/ready")).status_code != 200:
                    await asyncio.sleep(0.1)
            body = {"model": "speaking", "prompt": "Once", "max_tokens": 3, "temperature": 0}
            answer = await http.post("/v1/completions", json=body)
        assert answer.status_code == 200
        os.kill(gateway.pid, signal.SIGTERM)
        await asyncio.to_thread(gateway.wait_for_end, END_S)
    finally:
        gateway.interrupt()
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    [line] = [line for line in lines if line.get("path") == "/v1/completions"]
    assert line["tokens_out"] == 3 and line["status"] == 200 and line["request_id"] == answer.headers["x-request-id"]
    report = read_usage(ledger, ("model",))
    assert [(row.group, row.n_requests, row.tokens_out) for row in report.rows] == [(("speaking",), 1, 3)]


@pytest.mark.parametrize(
    ("text", "per_min"), [("60/min", 60.0), ("60", 60.0), ("2/s", 120.0), ("120/h", 2.0), (None, None)]
)
def test_rates(text: str | None, per_min: float | None) -> None:
    assert parse_rate("--rate", text) == per_min


@pytest.mark.parametrize("text", ["", "fast", "0/min", "-1", "nan", "inf", "5/fortnight"])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(BadArgument, match="such as 60/min"):
        parse_rate("--rate", text)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("magnet:?xt=nothing",), "infohash"),
        ((f"magnet:?xt=urn:btih:{'ab' * 20}", "--listen", "0.0.0.0:0"), "ask for a key"),
        ((f"magnet:?xt=urn:btih:{'ab' * 20}", "--api-key", "short"), "16 to 256"),
        ((f"magnet:?xt=urn:btih:{'ab' * 20}",) * 2, "name the same release"),
        (("mixtral-8x22b", "magnet:?xt=urn:btih:9238b09245d0d8cd915be09927769d5f7584c1c9"), "name the same release"),
        ((f"magnet:?xt=urn:btih:{'ab' * 20}", "--cors", "example.org"), "is not an origin"),
    ],
)
def test_what_cannot_be_served_is_said_before_anything_listens(
    arguments: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "swarm", "gateway", *arguments, "--no-ledger", "--data-dir", str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=120, env={**os.environ, "XDG_CONFIG_HOME": str(tmp_path)},
    )  # fmt: skip
    assert ended.returncode == 2 and said in ended.stderr
