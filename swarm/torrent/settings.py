"""Settings by name, as people write them: NAME=VALUE into a TorrentConfig."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from swarm.errors import BadArgument
from swarm.torrent.config import Proxy, TorrentConfig
from swarm.torrent.rates import parse_rate, parse_schedule


def _switch(text: str) -> bool:
    if text.lower() not in ("on", "off"):
        raise BadArgument(f"{text!r} is neither on nor off")
    return text.lower() == "on"


def _number(text: str) -> int:
    if not text.isdecimal() or len(text) > 6:
        raise BadArgument(f"{text!r} is not a whole number")
    return int(text)


_SETTINGS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "lsd": ("lsd", _switch),
    "pex": ("pex", _switch),
    "utp": ("utp", _switch),
    "encryption": ("encryption", str),
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
        if name not in _SETTINGS or not equals:
            raise BadArgument(f"{setting!r} is no BitTorrent setting; write NAME=VALUE with {', '.join(_SETTINGS)}")
        field, parse = _SETTINGS[name]
        changes[field] = parse(value)
    return replace(config, **changes)
