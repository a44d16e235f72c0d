"""How many tokens per second a whole placement takes, every node's time spent where it is best spent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from swarm.terms import Span

Work = NDArray[np.float64]
"""(n_layers + 1, n_layers + 1), or many of them: at [start, end] the layers per second of all who host just that."""

_EXACT = 1e-9


def work_of(spans: Iterable[tuple[Span, float]], n_layers: int) -> Work:
    """(n_layers + 1, n_layers + 1), of spans and the layers per second that are spent on them."""
    work = np.zeros((n_layers + 1, n_layers + 1))
    for span, speed in spans:
        work[span.start, span.end] += speed
    return work


def shares(spans: Sequence[Span], speed: float) -> list[tuple[Span, float]]:
    """A node in several pieces counts as if it shared its time among them by their lengths."""
    n_layers = sum(map(len, spans))
    return [(span, speed * len(span) / n_layers) for span in spans]


def capacity(work: Work) -> NDArray[np.float64]:
    """(n, n_layers + 1, n_layers + 1), of n placements -> (n,) tokens per second through all layers.

    A flow goes through if any set of layers takes it, for which only those work that host some of it (Hall's theorem).
    The worst set at some flow tells a lower one; what no set takes less than is the answer, found in a few rounds.
    """
    n_layers = work.shape[-1] - 1
    within = _within(work)
    total = within[:, 0, n_layers]
    flow = most = total / n_layers
    for _ in range(n_layers):  # each round's set has fewer layers than the one before
        asked, n_asked = _worst_set(within, flow)
        idle = asked - n_asked * flow
        lower = np.where(n_asked > 0, np.maximum(total - idle, 0.0) / np.maximum(n_asked, 1), flow)
        if (lower >= flow - _EXACT * most).all():
            break
        flow = np.minimum(flow, lower)
    return flow


def _within(work: Work) -> Work:
    """[:, a, b]: layers per second of the nodes that lie within layers a to b."""
    return work[:, ::-1].cumsum(1)[:, ::-1].cumsum(2)


def _worst_set(within: Work, flow: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The set of layers of which demand, and the work of nodes that are idle in its gaps, are the most together ->
    (that sum, layers in it), each (n,).
    """
    n, n_edges = within.shape[:2]
    rows = np.arange(n)
    most = np.zeros((n, n_edges))  # by where the set's last layer or gap ends
    n_asked = np.zeros((n, n_edges), dtype=np.int64)
    for end in range(1, n_edges):
        by_gap = most[:, :end] + within[:, :end, end]
        start = by_gap.argmax(1)
        with_gap = by_gap[rows, start]
        with_layer = most[:, end - 1] + flow
        is_asked = with_layer >= with_gap
        most[:, end] = np.where(is_asked, with_layer, with_gap)
        n_asked[:, end] = np.where(is_asked, n_asked[:, end - 1] + 1, n_asked[rows, start])
    return most[:, -1], n_asked[:, -1]


class Flow:
    """What flows through the whole model by where I am: the others' work, and mine."""

    def __init__(self, view_work: Work, n_layers: int, layers_per_s: float, max_tokens_per_s: float) -> None:
        self._others = view_work
        self._n_layers = n_layers
        self._layers_per_s, self._max_tokens_per_s = layers_per_s, max_tokens_per_s

    def matters(self, supply: NDArray[np.float64], share: float) -> bool:
        """Whether I could change it by this share at all. supply: (n_layers,), no more than which flows surely."""
        return min(self._layers_per_s, self._max_tokens_per_s) > share * float(supply.min())

    def could_rise(self, spans: Sequence[Span], n_layers: int, share: float) -> bool:
        """Whether it may be more by this share with me at any n_layers than at these spans: not if it is nearly all
        that so much work can do.
        """
        within = _within(_with(self._others, spans, self._work(sum(map(len, spans))))[None])
        most = (self._others.sum() + self._work(n_layers)) / self._n_layers / (1.0 + share)
        asked, _ = _worst_set(within, np.array([most]))
        return bool(asked[0] > within[0, 0, -1] * (1.0 + _EXACT))

    def at(self, choices: Sequence[tuple[Span, ...]]) -> NDArray[np.float64]:
        """(len(choices),) tokens per second."""
        by_choice = tuple((spans, self._work(sum(map(len, spans)))) for spans in choices)
        return np.array(_flows(self._others.tobytes(), self._n_layers, by_choice))

    def _work(self, n_layers: int) -> float:
        return min(self._layers_per_s, n_layers * self._max_tokens_per_s)


@lru_cache(maxsize=256)
def _flows(others: bytes, n_layers: int, choices: tuple[tuple[tuple[Span, ...], float], ...]) -> tuple[float, ...]:
    """Kept: a node looks again and again at what has not changed."""
    work = np.frombuffer(others).reshape(n_layers + 1, n_layers + 1)
    return tuple(capacity(np.stack([_with(work, spans, speed) for spans, speed in choices])).tolist())


def _with(others: Work, spans: Sequence[Span], speed: float) -> Work:
    return others + work_of(shares(spans, speed), len(others) - 1)
