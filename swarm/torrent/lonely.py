"""When to look for peers again where a torrent has none. libtorrent asks the DHT every 900 s and redials a refused peer
after 60 s: too late for us.
"""

from __future__ import annotations

_FIRST_S = 1.0
_MOST_S = 60.0


class Loneliness:
    """Pauses that grow by half, for as long as nobody is there."""

    def __init__(self) -> None:
        self._at_s: float | None = None
        self._pause_s = _FIRST_S

    def is_due(self, now_s: float, is_lonely: bool) -> bool:
        if not is_lonely:
            self._at_s, self._pause_s = None, _FIRST_S
            return False
        if self._at_s is None:
            self._at_s = now_s + self._pause_s
        if now_s < self._at_s:
            return False
        self._pause_s = min(self._pause_s * 1.5, _MOST_S)
        self._at_s = now_s + self._pause_s
        return True
