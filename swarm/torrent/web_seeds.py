"""When to take a torrent's HTTP copies up again: decided from progress and clock, without libtorrent.

libtorrent keeps the address that a web seed redirected it to, and after an error asks there again: behind a hub that
redirects to signed addresses, those expire. It also forgets files of a web seed that answered 429 or 403 once. Both
are mended by removing the web seeds and adding them anew, so that the next request starts at the first address.
"""

from __future__ import annotations

_LONGEST_PAUSE_S = 60.0
_LONGEST_BUSY_PAUSE_S = 300.0  # of hubs that count requests per five minutes


class WebSeedRenewal:
    """Says when to renew: after patience_s without progress while pieces are missing, then ever more rarely.

    patience_s: long enough for libtorrent's own retry, which honours Retry-After. A server that answered 429 or 503 is
    left alone twice as long each time, up to five minutes.
    """

    def __init__(self, urls: tuple[str, ...], patience_s: float) -> None:
        self.urls = urls
        self.is_reading = False  # somebody reads pieces from them at this moment
        self._patience_s = patience_s
        self._pause_s = patience_s
        self._progress = -1
        self._at_s: float | None = None
        self._is_busy = False

    def failed(self, status: int, now_s: float = 0.0, retry_after_s: float = 0.0) -> None:
        """A web seed answered with this HTTP status instead of data, and asked to be left alone for so long."""
        self._is_busy = self._is_busy or status in (429, 503)
        if retry_after_s > 0:
            self._at_s = max(self._at_s or 0.0, now_s + min(retry_after_s, _LONGEST_BUSY_PAUSE_S))

    def banned(self, url: str) -> None:
        """This web seed, or where the only one redirected to, sent data that fails its hash: never ask it again."""
        others = tuple(known for known in self.urls if known.rstrip("/") != url.rstrip("/"))
        self.urls = () if len(self.urls) == 1 else others

    def is_due(self, now_s: float, useful_bytes: int, is_missing: bool) -> bool:
        """Renew now. useful_bytes: what came so far; more of it is progress."""
        if not self.urls or not is_missing or useful_bytes > self._progress:
            self._progress = max(useful_bytes, self._progress)
            self._pause_s, self._at_s, self._is_busy = self._patience_s, None, False
            return False
        if self._at_s is None:
            self._at_s = now_s + self._pause_s
        if now_s < self._at_s:
            return False
        longest_s = _LONGEST_BUSY_PAUSE_S if self._is_busy else _LONGEST_PAUSE_S
        self._pause_s = min(2 * self._pause_s, longest_s)
        self._at_s = now_s + self._pause_s
        return True
