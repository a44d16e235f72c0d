"""The link that a verb was given: read once, with a word on what in it is of no use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarm.cli.console import note

if TYPE_CHECKING:
    from swarm.torrent import Magnet


def read_magnet(text: str) -> Magnet:
    """The link that `text` is or stands for; what was repaired in it or left out is told. Raises: MagnetError."""
    from swarm.torrent import magnet_of

    magnet = magnet_of(text)
    for warning in magnet.warnings:
        note(f"warning: {warning}")
    return magnet
