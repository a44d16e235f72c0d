"""How long a host of experts takes, as the one who asks measures it. Pure: seconds come in as arguments."""

from __future__ import annotations

from collections import deque

FEW_ROWS = 16
"""Calls of so many rows or fewer take about the same time: a reading of the weights and a round trip."""

SMOOTHING = 0.1
N_REMEMBERED = 128
N_BEFORE_HEDGING = 20
"""A 95th percentile of fewer calls would be their maximum, or less."""

UNKNOWN_HEDGE_S = 2.0
"""While so few were measured: a host that was met may still be one that never answers."""

LEAST_HEDGE_S = 0.005
"""Below it the machine's own noise would be hedged against."""


class Pace:
    """The answer times of one host."""

    def __init__(self) -> None:
        self._few_s: float | None = None  # of calls of few rows
        self._row_s: float | None = None  # a row of many
        self._remembered: deque[float] = deque(maxlen=N_REMEMBERED)
        self._slow_s = 0.0

    def note(self, n_rows: int, answer_s: float) -> None:
        """A call of n_rows was answered after answer_s."""
        if n_rows > FEW_ROWS:
            row_s = answer_s / n_rows
            self._row_s = row_s if self._row_s is None else self._row_s + SMOOTHING * (row_s - self._row_s)
            return
        self._few_s = answer_s if self._few_s is None else self._few_s + SMOOTHING * (answer_s - self._few_s)
        self._remembered.append(answer_s)
        if len(self._remembered) >= N_BEFORE_HEDGING and (not self._slow_s or len(self._remembered) % 8 == 0):
            self._slow_s = sorted(self._remembered)[len(self._remembered) * 95 // 100]

    def expect_s(self, n_rows: int) -> float:
        """The usual answer time of a call of n_rows; 0.0 while nothing was measured."""
        return max(self._few_s or 0.0, n_rows * (self._row_s or 0.0) if n_rows > FEW_ROWS else 0.0)

    def hedge_s(self, n_rows: int) -> float:
        """After how long another host should be asked too: the 95th percentile, once enough is known for that."""
        if not self._slow_s:
            return max(UNKNOWN_HEDGE_S, 4 * self.expect_s(n_rows))
        return max(LEAST_HEDGE_S, self._slow_s, 2 * self.expect_s(n_rows) if n_rows > FEW_ROWS else 0.0)
