"""fetch: how little a node fetches for what it hosts, in every layout, and how fast a whole release comes.

The rate's peer is aria2c, fetching the same torrent from the same seeder, both from nothing to the last verified piece.
"""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import socket
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.fetch_layouts import transferred, true_scale
from benchmarks.figures import Figure, Measure, faster, take_turns
from benchmarks.processes import Processes, serving
from node.weights import PRESETS, write_preset, write_release
from swarm.release import pick_piece_size
from swarm.terms import Address
from swarm.torrent import Download, Torrent, TorrentConfig, TorrentSession, create_torrent

BENCH = "fetch"
OURS = "ours"
PEER = "aria2c"
QUARTERS = ("0:6", "6:12", "12:18", "18:24")
FETCH_TIMEOUT_S = 120.0
DEFAULT_ROUNDS = 4

WIDER = dataclasses.replace(PRESETS["24-layer"].args, dim=512, hidden_dim=480)
"""300 MB in bf16: enough for a rate."""


def run(work_dir: Path, n_rounds: int) -> list[Figure]:
    """Fetched by needed per layout and piece size; by real nodes; and the rate of a whole release."""
    layouts = [*true_scale(), *transferred(work_dir)]
    with Processes(work_dir) as processes:
        figures = _quarters(processes, work_dir)
    return layouts + figures + asyncio.run(_rates(work_dir, n_rounds))


def _quarters(processes: Processes, work_dir: Path) -> list[Figure]:
    """Bytes that came over the network by those that the layers need, one node at a time, from one seeder."""
    folder = work_dir / "24-layer"
    write_preset("24-layer", folder)
    seeder, magnet = processes.seed(folder)
    figures = []
    for span in QUARTERS:
        with serving(processes, magnet, [span], "bf16") as (node,):
            # The node's count of what came may lag behind; the whole pieces that it planned to fetch do not.
            fetched = float(max(node.ready["planned_bytes"], node.ready["fetched_bytes"]))
            needed = float(node.ready["needed_bytes"])
        case = f"fetched by needed, layers {span} of 24"
        figures.append(Figure(BENCH, case, fetched / needed, "", "no byte too many", 1.0, needed / fetched))
        share = fetched / float(node.ready["release_bytes"])
        figures.append(Figure(BENCH, f"share of the release, layers {span} of 24", share, ""))
    processes.stop(seeder)
    return figures


async def _rates(work_dir: Path, n_rounds: int) -> list[Figure]:
    folder = work_dir / "whole"
    write_release(WIDER, folder, n_shards=4)
    size_bytes = sum(path.stat().st_size for path in folder.iterdir())
    torrent = create_torrent(folder, piece_size=pick_piece_size(size_bytes))
    file = work_dir / "whole.torrent"
    file.write_bytes(torrent.data)
    async with TorrentSession(TorrentConfig.loopback(dht=False)) as session:
        seed = await session.seed(torrent, work_dir, verified=True)
        at = Address("127.0.0.1", session.port)
        contestants: dict[str, Measure] = {OURS: lambda: _timed(_ours, torrent, at, work_dir / "ours")}
        if shutil.which("aria2c"):
            contestants[PEER] = lambda: _timed(_aria2, file, seed, work_dir / "aria2")
        seconds = await take_turns(contestants, n_rounds)
    rates = {name: [size_bytes / 1e6 / s for s in scores] for name, scores in seconds.items()}
    case = f"whole release of {size_bytes / 1e6:.0f} MB from one seeder"
    if PEER not in rates:
        return [Figure(BENCH, case + " (aria2c is not installed)", statistics.median(rates[OURS]), "MB/s")]
    return [faster(BENCH, case, "MB/s", rates[OURS], PEER, rates[PEER])]


async def _timed(fetch: Callable[..., Awaitable[None]], source: object, seeder: object, save_dir: Path) -> float:
    """Seconds from nothing, the start of session or process included, to the whole release in save_dir."""
    started_s = time.perf_counter()
    await fetch(source, seeder, save_dir)
    elapsed_s = time.perf_counter() - started_s
    shutil.rmtree(save_dir)
    return elapsed_s


async def _ours(torrent: Torrent, seeder: Address, save_dir: Path) -> None:
    async with TorrentSession(TorrentConfig.loopback(dht=False)) as session:
        download = await session.add(torrent, save_dir, peers=(seeder,))
        await download.want(dict.fromkeys(range(torrent.n_pieces), 4))
        await download.wait_for(range(torrent.n_pieces), stall_timeout_s=FETCH_TIMEOUT_S)


async def _aria2(torrent_file: Path, seed: Download, save_dir: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    quiet = ("--no-conf", "--quiet", "--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false")
    place = ("--interface=127.0.0.1", "--disable-ipv6=true", f"--listen-port={port}", f"--dir={save_dir}")
    what = ("--file-allocation=none", "--seed-time=0", str(torrent_file))
    process = await asyncio.create_subprocess_exec("aria2c", *quiet, *place, *what)
    try:
        async with asyncio.timeout(FETCH_TIMEOUT_S):
            await _listening(port)
            seed.add_peers([Address("127.0.0.1", port)])  # without tracker or DHT it can only be found, not find
            status = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if status != 0:
        raise RuntimeError(f"aria2c ended with status {status}")


async def _listening(port: int) -> None:
    """Return as soon as somebody listens on a port of this machine."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.005)
        else:
            writer.close()
            return
