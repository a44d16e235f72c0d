"""How often one participant may ask for what costs this node something."""

from __future__ import annotations

import time


class Allowance:
    """Each may ask `burst` times at once, and then once in refill_s. Remembers the max_askers that asked last."""

    def __init__(self, burst: int, refill_s: float, max_askers: int) -> None:
        self._burst = burst
        self._refill_s = refill_s
        self._max_askers = max_askers
        self._spent: dict[str, tuple[float, float]] = {}  # by asker: times spent, and when that was counted (monotonic)

    def spend(self, asker: str) -> bool:
        """Whether it may now; if so, that is one time less."""
        now_s = time.monotonic()
        spent, counted_s = self._spent.pop(asker, (0.0, now_s))
        spent = max(0.0, spent - (now_s - counted_s) / self._refill_s)
        may = spent + 1 <= self._burst
        self._spent[asker] = (spent + 1 if may else spent, now_s)
        while len(self._spent) > self._max_askers:
            del self._spent[next(iter(self._spent))]
        return may

    def __len__(self) -> int:
        return len(self._spent)
