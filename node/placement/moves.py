"""From the layers that a node has to those that it shall have, never with more in memory than there is room for."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from swarm.terms import Span, merge_spans


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a move: load these layers, and only then leave those."""

    load: tuple[Span, ...]
    leave: tuple[Span, ...]


def plan_move(
    hosted: Iterable[Span], target: Iterable[Span], n_room: int, first: Collection[int] = ()
) -> tuple[Part, ...]:
    """The parts that lead from hosted to target, each loading before it leaves.

    n_room: layers that are in memory at most; one more than are hosted when there is no other way, so that a full
    node can move at all. first: layers to load before all others, such as nobody serves. Only the difference is loaded.
    """
    before = {idx for span in hosted for idx in span}
    after = {idx for span in target for idx in span}
    coming, going = sorted(after - before, key=lambda idx: (idx not in first, idx)), sorted(before - after)
    n_held = len(before)
    parts: list[Part] = []
    while coming or going:
        n_loaded = min(len(coming), max(1, n_room - n_held))
        load, coming = coming[:n_loaded], coming[n_loaded:]
        n_left = len(going) if not coming else min(len(going), max(n_loaded, n_held + n_loaded - n_room))
        leave, going = going[:n_left], going[n_left:]
        n_held += n_loaded - n_left
        parts.append(Part(_as_spans(load), _as_spans(leave)))
    return tuple(parts)


def _as_spans(layers: list[int]) -> tuple[Span, ...]:
    return merge_spans([Span(idx, idx + 1) for idx in layers])
