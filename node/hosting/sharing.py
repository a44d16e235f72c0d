"""What this machine gave to others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from swarm.discovery import Discovery
from swarm.torrent import Download

SHARING_INTERVAL_S = 10.0
"""How often a node says what it gave, when that changed."""


async def tell_sharing(
    download: Download, on_event: Callable[[str, dict[str, Any]], None], on_given: Callable[[int, int], None]
) -> None:
    """Say now and then, as the event `sharing`, what was given to others, when something was.

    on_given: told the bytes given and those taken, over all runs in the folder.
    """
    told = -1
    while True:
        status = download.status()
        if status.uploaded_ever_bytes != told:
            told = status.uploaded_ever_bytes
            ratio = status.share_ratio
            on_given(told, status.fetched_ever_bytes)
            fields = {"uploaded_bytes": told, "fetched_bytes": status.fetched_ever_bytes}
            fields |= {"upload_rate": status.upload_rate, "n_peers": status.n_peers}
            on_event("sharing", {**fields, "share_ratio": None if ratio is None else round(ratio, 4)})
        await asyncio.sleep(SHARING_INTERVAL_S)


async def introduce(download: Download, discovery: Discovery) -> None:
    """Tell the torrent of the nodes that were met, now and as they come: they seed what they host."""
    while True:
        download.add_peers(discovery.torrent_peers())
        await asyncio.sleep(min(1.0, discovery.config.exchange_interval_s))
