"""Keeps torrents below what they may take on disk, whenever what is wanted of them changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection

from swarm.errors import SwarmError
from swarm.torrent.download import Download
from swarm.torrent.room import check_room, choose_evictions
from swarm.torrent.sharing import Demand, Keeper

_log = logging.getLogger(__name__)


class Trimmer:
    """One torrent at a time. drop: gives up pieces of a download that nobody here wants, and their room on disk."""

    def __init__(self, drop: Callable[[Download, Collection[int]], Awaitable[None]]) -> None:
        self._drop = drop
        self._trimming = asyncio.Lock()

    def host(self, download: Download, keeper: Keeper, pieces: set[int], disk_bytes: int) -> None:
        """These pieces are what this process hosts from now on. Raises: BadArgument where they do not fit."""
        check_room(pieces | keeper.hosted, download.torrent.bytes_in, keeper.limit(disk_bytes))
        download.hosted, download.disk_bytes = pieces, disk_bytes
        download.transfer.unwant(download.transfer.wanted.keys() - pieces - keeper.hosted)

    async def trim(self, download: Download, keeper: Keeper, to_come: Collection[int] = ()) -> None:
        """Give up what is too much beside what is hosted and what is to come. Raises: BadArgument, TransferError."""
        async with self._trimming:
            if not (limit := keeper.limit(download.disk_bytes)):
                return
            bytes_in = download.torrent.bytes_in
            hosted = keeper.hosted | download.hosted | set(to_come)
            check_room(hosted, bytes_in, limit)
            if bytes_in(download.transfer.have | hosted) <= limit:
                return
            others = await download.known_availability()
            await self._drop(download, choose_evictions(download.transfer.have, hosted, bytes_in, others, limit))

    async def meet(self, download: Download, keeper: Keeper, demand: Demand) -> None:
        """Want what followers want, once there is room for it, and nothing that only they wanted who have gone."""
        if released := demand.released - download.hosted:
            download.transfer.unwant(released)
        if demand.wanted:
            try:
                await self.trim(download, keeper, demand.wanted)
            except (SwarmError, OSError) as error:  # it comes all the same: its follower has looked for room before
                _log.warning("torrent %s takes more than it may: %s", download.infohash, error)
            download.transfer.want(demand.wanted)
