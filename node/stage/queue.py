"""How long steps lately waited for their turn."""

from __future__ import annotations

import math
from collections.abc import Callable

_MEMORY_S = 3.0
"""What waited so long ago counts for a third: a node that nobody comes to any more is free again soon."""


class RecentQueue:
    """A running mean of waits that fades when no step comes. clock: seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._wait_s = 0.0
        self._at_s = clock()

    @property
    def wait_s(self) -> float:
        return self._wait_s * math.exp((self._at_s - self._clock()) / _MEMORY_S)

    def add(self, wait_s: float) -> None:
        """One step waited so long."""
        self._wait_s, self._at_s = self.wait_s + 0.1 * (wait_s - self.wait_s), self._clock()
