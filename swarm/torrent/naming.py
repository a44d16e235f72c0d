"""What people write where a torrent is meant: a magnet link, or the name of a release in the catalogue. Pure."""

from __future__ import annotations

import difflib

from swarm.errors import MagnetError
from swarm.release.catalogue import CATALOGUE, find_entry
from swarm.torrent.magnet import Magnet


def magnet_of(text: str) -> Magnet:
    """The link that `text` is, or the one that it stands for: a catalogue's name, in any case, or its infohash.

    Raises: MagnetError, for text that is neither with the names that there are.
    """
    entry = find_entry(text)
    if entry is not None:
        return Magnet(entry.infohash, None, entry.name, entry.trackers)
    if is_magnet_link(text):
        return Magnet.parse(text)
    names, begun = {entry.name.lower(): entry.name for entry in CATALOGUE}, text.strip().lower()
    close = [name for lower, name in names.items() if begun and lower.startswith(begun)]
    close = close or [names[name] for name in difflib.get_close_matches(begun, names, n=2, cutoff=0.5)]
    mend = f"did you mean {' or '.join(close)}?" if close else f"names: {', '.join(names.values())}"
    raise MagnetError(
        f"{text[:60]!r} is not a magnet link, which starts with magnet:?xt=urn:btih:, and no name from "
        f"`swarm release list`; {mend}"
    )


def is_magnet_link(text: str) -> bool:
    """Whether it is meant to be a link, in whatever state it was pasted."""
    return text.lstrip(" \"'<>`").lower().startswith("magnet:")
