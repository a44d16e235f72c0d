"""How often each expert is routed to: what decides which experts are worth another host."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

HALF_LIFE_ROWS = 4096
"""After as many rows more an old one counts half. Raising it makes the heat steadier and slower to follow what people
ask for."""

_WRAP = 1 << 32
"""A device counts in so many numbers, and then from the first one again."""


@dataclass(slots=True)
class _Watched:
    n_chosen: int
    read: Callable[[], Sequence[int]]
    seen: Sequence[int]


class RoutingHeat:
    """Rows routed to each expert of each layer, old ones counting less. Counted by one thread, read by any.

    Where a device routes by itself, it counts too, and is asked when the heat is.
    """

    def __init__(self, n_experts: int) -> None:
        self._n_experts = n_experts
        self._layers: dict[int, list[float]] = {}
        self._rows: dict[int, float] = {}
        self._lock = threading.Lock()
        self._watched: dict[int, _Watched] = {}

    def count(self, layer_idx: int, n_rows: int, routed: Iterable[tuple[int, int]]) -> None:
        """n_rows went through a layer's router; routed: (expert_idx, how many of them it got)."""
        counts = self._layers.get(layer_idx)
        if counts is None:
            counts = self._layers[layer_idx] = [0.0] * self._n_experts
            self._rows[layer_idx] = 0.0
        for expert_idx, n in routed:
            counts[expert_idx] += n
        self._rows[layer_idx] += n_rows
        while self._rows[layer_idx] >= 2 * HALF_LIFE_ROWS:  # a device may tell of many at once
            self._rows[layer_idx] /= 2
            counts[:] = [n / 2 for n in counts]

    def watch(self, layer_idx: int, n_chosen: int, read: Callable[[], Sequence[int]]) -> None:
        """A layer that counts by itself: read tells how many rows each expert got since the layer was there, but for
        multiples of 2^32. n_chosen: experts of a row. In the place of what was watched of this layer before.
        """
        with self._lock:
            self._watched[layer_idx] = _Watched(n_chosen, read, [0] * self._n_experts)

    def shares(self) -> dict[int, tuple[float, ...]]:
        """By layer that rows came through: each expert's share of them, together as much as experts per token."""
        with self._lock:
            for layer_idx, watched in self._watched.items():
                now = watched.read()
                new = [(n - before) % _WRAP for n, before in zip(now, watched.seen, strict=True)]
                watched.seen = now
                if any(new):
                    self.count(layer_idx, sum(new) // watched.n_chosen, enumerate(new))
        return {
            layer_idx: tuple(min(1.0, n / rows) for n in tuple(self._layers[layer_idx]))
            for layer_idx, rows in list(self._rows.items())
            if rows
        }
