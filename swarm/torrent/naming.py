"""What people write where a torrent is meant: a magnet link, or the name of a release in the catalogue.

Pure, but for one look at whether a text that is neither names something on this machine.
"""

from __future__ import annotations

import difflib
import os
import re

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
    what = _what_else(text.strip())
    if what is not None:
        raise MagnetError(f"{text[:60]!r} is not a magnet link, but {what}")
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


def _what_else(text: str) -> str | None:
    """What it looks to be, and the link to write for it; None for what is like nothing that has a link."""
    if re.fullmatch(r"[0-9A-Fa-f]{40}", text):
        return f"an infohash; write magnet:?xt=urn:btih:{text.lower()}"
    if re.fullmatch(r"(?:1220)?[0-9A-Fa-f]{64}", text):
        return f"a v2 infohash; write magnet:?xt=urn:btmh:1220{text[-64:].lower()}"
    is_folder = os.path.isdir(text) if "\0" not in text else False
    kind = "a folder" if is_folder else "a torrent file" if text.lower().endswith(".torrent") else None
    if kind is None:
        return None
    return f"{kind}; seed it with `swarm release seed {text[:200]}`, and take the link that this prints"
