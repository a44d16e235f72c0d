"""A release's layout read over BitTorrent: configs, index and the heads of the weight files, and nothing else."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from swarm.cli.console import ProgressMeter, format_rate
from swarm.cli.options import Reach

if TYPE_CHECKING:
    from swarm.release import ByteRange, ReleaseLayout
    from swarm.torrent import Download, Magnet, Torrent


@dataclass(frozen=True, slots=True)
class RemoteRelease:
    """files: path -> bytes, without pads. fetched_bytes: what came over the network for it."""

    torrent: Torrent
    layout: ReleaseLayout
    files: dict[str, int]
    fetched_bytes: int


async def fetch_release_layout(source: Magnet | Torrent, reach: Reach, timeout_s: float) -> RemoteRelease:
    """Read the layout of a release that is not on this machine, into a temporary folder that is gone afterwards.

    Raises: MetadataTimeout, TransferStalled, CorruptRelease, UnsupportedArchitecture.
    """
    from swarm.release import read_layout
    from swarm.torrent import TorrentSession

    with tempfile.TemporaryDirectory(prefix="swarm-inspect-") as folder:
        async with TorrentSession(reach.torrent_config()) as session:
            download = await session.add(source, Path(folder), peers=reach.peers)
            torrent = await download.metadata(timeout_s)
            files = {entry.path: entry.size_bytes for entry in torrent.files if not entry.is_pad}
            with ProgressMeter(f"reading the heads of {torrent.name}") as meter:
                reader = RangeReader(download, meter)
                layout = await drive(read_layout(files, None), reader.read)
            return RemoteRelease(torrent, layout, files, download.status().fetched_bytes)


async def drive(
    parser: Generator[list[ByteRange], list[bytes], ReleaseLayout], read: Callable[[ByteRange], Awaitable[bytes]]
) -> ReleaseLayout:
    """Answer a sans-IO reader's questions until it returns."""
    try:
        wanted = next(parser)
        while True:
            wanted = parser.send(list(await asyncio.gather(*map(read, wanted))))
    except StopIteration as stop:
        return stop.value


class RangeReader:
    """Reads byte ranges of a download, counting them on stderr."""

    def __init__(self, download: Download, meter: ProgressMeter) -> None:
        self._download = download
        self._meter = meter
        self._read_bytes = 0

    async def read(self, wanted: ByteRange) -> bytes:
        data = await self._download.fetch(wanted.file, wanted.offset, wanted.size_bytes)
        self._read_bytes += len(data)
        self._meter.update(self._read_bytes, format_rate(self._download.status().download_rate))
        return data
