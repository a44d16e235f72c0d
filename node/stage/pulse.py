"""Whether the compute thread is still alive: how long its batch has been running, against what its like took."""

from __future__ import annotations

import time
from collections.abc import Callable

from swarm.errors import DeadlineExceeded

FLOOR_S = 5.0
"""No batch counts as stuck before."""

CEILING_S = 120.0
"""Every batch counts as stuck then: clients give up on a step as well. Until one was measured it is the only bound."""

FACTOR = 10.0
"""How many times longer than the slowest so far, row by row, a batch may take."""


class Pulse:
    """One thread tells when its batches begin and end, and any other may ask."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._running: tuple[float, int] | None = None  # since when, how many rows
        self._row_s = 0.0  # of the slowest batch

    def began(self, n_rows: int) -> None:
        self._running = self._clock(), n_rows

    def ended(self) -> None:
        assert self._running is not None
        began_s, n_rows = self._running
        self._running = None
        self._row_s = max(self._row_s, (self._clock() - began_s) / n_rows)

    def check(self) -> None:
        """Raises: DeadlineExceeded when the running batch is stuck."""
        running = self._running
        if running is None:
            return
        began_s, n_rows = running
        took_s = self._clock() - began_s
        expected_s = self._row_s * n_rows
        bound_s = min(CEILING_S, max(FLOOR_S, FACTOR * expected_s)) if self._row_s else CEILING_S
        if took_s > bound_s:
            raise DeadlineExceeded(
                f"a batch has been computing for {took_s:.0f} s here, where {expected_s:.1f} s were expected; the node "
                "is stuck: use another, and restart it"
            )
