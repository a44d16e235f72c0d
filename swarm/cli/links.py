"""The link that a verb was given: read once, with a word on what in it is of no use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarm.cli.console import note
from swarm.errors import MetadataTimeout

if TYPE_CHECKING:
    from swarm.cli.options import Reach
    from swarm.torrent import Magnet, Torrent


def read_magnet(text: str) -> Magnet:
    """The link that `text` is or stands for; what was repaired in it or left out is told. Raises: MagnetError."""
    from swarm.torrent import magnet_of

    magnet = magnet_of(text)
    for warning in magnet.warnings:
        note(f"warning: {warning}")
    return magnet


def require_somebody(source: Magnet | Torrent, reach: Reach) -> None:
    """For verbs that ask nobody but whom the link and the flags name.

    Raises: MetadataTimeout, before any time is spent, where a network of this machine alone leaves all of them out.
    """
    from swarm.torrent import Magnet
    from swarm.torrent.reach import allows_address, allows_url

    config = reach.torrent_config()
    peers = (*reach.torrent_peers, *reach.bootstrap, *(source.peers if isinstance(source, Magnet) else ()))
    urls = (*source.trackers, *source.web_seeds)
    is_open = not config.loopback_only
    if is_open or any(allows_address(config, peer) for peer in peers) or any(allows_url(config, url) for url in urls):
        return
    raise MetadataTimeout(
        f"nobody on this machine is named who could be asked for torrent {source.infohash}, and --network loopback "
        "asks nobody else: look further with --network wan (SWARM_NETWORK may have set it), or name who has it with "
        "--torrent-peer HOST:PORT"
    )
