"""Settings by name, as people write them: NAME=VALUE into a TorrentConfig."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from swarm.errors import BadArgument
from swarm.torrent.config import ENCRYPTIONS, Proxy, TorrentConfig
from swarm.torrent.rates import parse_rate, parse_schedule


def _switch(text: str) -> bool:
    if text.lower() not in ("on", "off"):
        raise BadArgument(f"write on or off, not {text!r}")
    return text.lower() == "on"


def _number(text: str) -> int:
    if not text.isdecimal() or len(text) > 6:
        raise BadArgument(f"write a whole number, such as 8, not {text!r}")
    return int(text)


def _encryption(text: str) -> str:
    if text not in ENCRYPTIONS:
        raise BadArgument(f"write {', '.join(ENCRYPTIONS[:-1])} or {ENCRYPTIONS[-1]}, not {text!r}")
    return text


_SETTINGS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "lsd": ("lsd", _switch),
    "pex": ("pex", _switch),
    "utp": ("utp", _switch),
    "encryption": ("encryption", _encryption),
    "proxy": ("proxy", Proxy.parse),
    "upload-slots": ("upload_slots", _number),
    "upload-rate": ("upload_rate", parse_rate),
    "download-rate": ("download_rate", parse_rate),
    "schedule": ("schedule", parse_schedule),
}

SETTING_NAMES = tuple(_SETTINGS)


def with_settings(config: TorrentConfig, settings: Iterable[str]) -> TorrentConfig:
    """The config with these NAME=VALUE applied, later ones over earlier ones. Raises: BadArgument."""
    changes: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if name not in _SETTINGS:
            raise BadArgument(f"--bittorrent {name!r}: there is no such setting; names: {', '.join(_SETTINGS)}")
        field, parse = _SETTINGS[name]
        try:
            changes[field] = parse(value)
        except BadArgument as error:  # without the value, which may be a proxy's password
            lack = "" if equals else "it lacks its =VALUE; "
            raise BadArgument(f"--bittorrent {name}: {lack}{error.message}") from None
    return replace(config, **changes)
