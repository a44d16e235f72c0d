"""Rate limits by time of day."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from swarm.errors import BadArgument

if TYPE_CHECKING:
    from swarm.torrent.config import TorrentConfig

_UNITS = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000}
_DAY_MINUTES = 24 * 60


@dataclass(frozen=True, slots=True)
class RateWindow:
    """From start to end (minutes after midnight, end before start: over midnight) these bytes/s hold; 0: no limit."""

    start: int
    end: int
    upload_rate: int
    download_rate: int

    def __contains__(self, minute: int) -> bool:
        if self.start < self.end:
            return self.start <= minute < self.end
        return minute >= self.start or minute < self.end


def parse_rate(text: str) -> int:
    """`2M` -> 2 000 000 bytes per second; k, M and G are decimal. Raises: BadArgument."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)([kKmMgG]?)(?:B/s)?", text.strip())
    if match is None:
        raise BadArgument(f"{text!r} is not a rate; write bytes per second, such as 500k or 2M, or 0 for no limit")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def parse_schedule(text: str) -> tuple[RateWindow, ...]:
    """`08:00-18:00=2M,18:00-23:00=5M/20M`: by local time, upload or upload/download. Raises: BadArgument."""
    return tuple(_window(part) for part in text.split(","))


def rates_now(config: TorrentConfig) -> tuple[int, int]:
    """The rates of this moment, by this machine's clock."""
    now = time.localtime()
    return rates_at(config.schedule, now.tm_hour * 60 + now.tm_min, config.upload_rate, config.download_rate)


def rates_at(schedule: tuple[RateWindow, ...], minute: int, upload_rate: int, download_rate: int) -> tuple[int, int]:
    """(upload, download) at a minute of the day: the first window's that holds then, else the given ones."""
    for window in schedule:
        if minute in window:
            return window.upload_rate, window.download_rate
    return upload_rate, download_rate


def _window(text: str) -> RateWindow:
    match = re.fullmatch(r"\s*(\d{1,2}):(\d\d)-(\d{1,2}):(\d\d)=([^/]+)(?:/([^/]+))?\s*", text)
    if match is None:
        raise BadArgument(f"{text!r} is no window of a schedule; write HH:MM-HH:MM=UPLOAD or …=UPLOAD/DOWNLOAD")
    start, end = int(match[1]) * 60 + int(match[2]), int(match[3]) * 60 + int(match[4])
    if start >= _DAY_MINUTES or end > _DAY_MINUTES or max(int(match[2]), int(match[4])) > 59 or start == end:
        raise BadArgument(f"{text!r} names no time of day; write 00:00 to 24:00, with another end than start")
    return RateWindow(start, end, parse_rate(match[5]), parse_rate(match[6]) if match[6] else 0)
