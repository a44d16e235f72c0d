"""Which layers can be served while others are still on their way."""

from __future__ import annotations

from node.hosting import servable
from swarm.terms import Span


def test_layers_serve_as_they_come_and_the_ends_wait_for_what_they_need() -> None:
    spans, loaded = (Span(0, 2), Span(4, 6)), set[int | str]()
    grown = []
    for part in ("embeddings", 0, 1, 4, 5, "head"):
        loaded.add(part)
        grown.append(servable(spans, 6, loaded))
    tail = (Span(0, 2), Span(4, 5))
    assert grown == [(), (Span(0, 1),), (Span(0, 2),), tail, tail, (Span(0, 2), Span(4, 6))]


def test_the_first_layer_waits_for_the_embeddings() -> None:
    assert servable((Span(0, 3),), 6, {0, 1}) == (Span(1, 2),)
    assert servable((Span(0, 3),), 6, {0, 1, "embeddings"}) == (Span(0, 2),)
