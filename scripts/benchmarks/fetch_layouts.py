"""Fetched by needed in every layout that Mistral's weights are found in: at true scale by what the readers read, and at
a small scale by what comes over a socket.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure
from swarm.cli.console import format_piece_size
from swarm.cli.release_plan import FORMATS, LAYOUTS, Part, PlanRow, example_part, plan_layouts, plan_row
from swarm.client.release import read_remote_layout
from swarm.release import PieceMap, hollow_release, plan_fetch
from swarm.release.hollow import KNOWN_ARGS, HollowRelease
from swarm.terms import Address
from swarm.torrent import Torrent, TorrentConfig, TorrentSession, create_torrent

BENCH = "fetch"
LIMIT = 1.02
"""The most that a node may fetch by what it needs, with the piece size that `release create` picks."""

PIECE_SIZES = (256 << 10, 1 << 20, 4 << 20)
TRUE_PARTS = ("layers 12:16", "experts 5:3", "experts 8-15:3")
SMALL_PARTS = ("layers 2:5", "experts 3:1-2")
SMALL = dataclasses.replace(
    KNOWN_ARGS["mixtral-8x7b"], dim=512, n_layers=8, n_heads=8, n_kv_heads=2, head_dim=64, hidden_dim=1024, windows=()
)
SMALL_SHARD_BYTES = 50_000_000
NAMES = {
    "hf": "HF shards",
    "mistral": "consolidated.safetensors",
    "mistral-pth": "consolidated.00.pth",
    "mistral-fused": "fused .00-07.pt",
}


def true_scale() -> Iterator[Figure]:
    """Of 8x7B and 8x22B: computed, since the true files are not here. The picked piece size has a limit to keep."""
    for model in LAYOUTS:
        for format in FORMATS:
            for words in TRUE_PARTS:
                parts = [example_part(words)]
                for row in plan_layouts(model, [format], parts, PIECE_SIZES):
                    yield Figure(BENCH, _case(row, ""), row.ratio, "")
                (picked,) = plan_layouts(model, [format], parts, ())
                yield Figure(BENCH, _case(picked, " (picked)"), picked.ratio, "", "limit", LIMIT, LIMIT / picked.ratio)


def transferred(work_dir: Path) -> list[Figure]:
    """Of a small Mixtral: what came over the socket, and what the same computation as above says of it."""
    figures = []
    for format in FORMATS:
        folder = work_dir / f"small-{format}"
        sizes = write_hollow(hollow_release(SMALL, format, shard_bytes=SMALL_SHARD_BYTES), folder)
        for piece_size in PIECE_SIZES:
            torrent = create_torrent(folder, piece_size=piece_size)
            for words in SMALL_PARTS:
                figures.append(asyncio.run(_transfer(torrent, folder, sizes, example_part(words))))
        shutil.rmtree(folder)
    return figures


def write_hollow(release: HollowRelease, folder: Path) -> dict[str, int]:
    """The release with random bytes in its holes, so that its heads can be read and none of its pieces is like another.
    -> its files' sizes.
    """
    folder.mkdir()
    for name, size in release.sizes.items():
        with (folder / name).open("wb") as file:
            for offset in range(0, size, 16 << 20):
                file.write(os.urandom(min(16 << 20, size - offset)))
            for offset, part in release.parts(name).items():
                file.seek(offset)
                file.write(part)
    return release.sizes


async def _transfer(torrent: Torrent, folder: Path, sizes: dict[str, int], part: Part) -> Figure:
    """As a node does it: the heads first, then the pieces of what it hosts, from one seeder."""
    out = folder.parent / "out"
    async with (
        TorrentSession(TorrentConfig.loopback(dht=False)) as seeder,
        TorrentSession(TorrentConfig.loopback(dht=False)) as leecher,
    ):
        await seeder.seed(torrent, folder.parent, verified=True)
        download = await leecher.add(torrent, out, peers=[Address("127.0.0.1", seeder.port)])
        layout = await read_remote_layout(download, torrent, part.spans, experts=part.experts)
        plan = plan_fetch(layout, PieceMap(torrent.piece_size, torrent.offsets, sizes), part.spans, part.experts)
        await download.want(dict.fromkeys(plan.all_pieces, 4))
        await download.wait_for(plan.all_pieces)
        fetched_bytes = (await download.refresh()).fetched_bytes
    await asyncio.to_thread(shutil.rmtree, out)
    row = plan_row("small Mixtral", layout, part, sizes, torrent.piece_size)
    ratio = fetched_bytes / row.needed_bytes
    return Figure(BENCH, _case(row, ", transferred"), ratio, "", "computed", row.ratio, row.ratio / ratio)


def _case(row: PlanRow, more: str) -> str:
    return f"{row.release}, {NAMES[row.format]}, {row.part}, {format_piece_size(row.piece_size)}{more}"
