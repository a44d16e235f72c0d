"""A move in parts: the new is loaded before the old is left, and memory is never asked for more than it has."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from node.placement import Part, plan_move
from swarm.terms import Span, merge_spans


def spans(layers: set[int]) -> tuple[Span, ...]:
    return merge_spans([Span(idx, idx + 1) for idx in layers])


def layers(of: tuple[Span, ...]) -> set[int]:
    return {idx for span in of for idx in span}


def test_only_the_difference_is_loaded_and_left() -> None:
    assert plan_move([Span(0, 8)], [Span(4, 12)], 12) == (Part((Span(8, 12),), (Span(0, 4),)),)


def test_a_full_node_moves_a_layer_at_a_time() -> None:
    assert plan_move([Span(0, 2)], [Span(2, 4)], 2) == (
        Part((Span(2, 3),), (Span(0, 1),)),
        Part((Span(3, 4),), (Span(1, 2),)),
    )


def test_what_nobody_serves_is_loaded_first() -> None:
    parts = plan_move([Span(0, 2)], [Span(2, 7)], 4, first={5, 6, 9})
    assert [part.load for part in parts] == [(Span(5, 7),), (Span(2, 4),), (Span(4, 5),)]


@given(
    before=st.sets(st.integers(0, 20), min_size=1),
    after=st.sets(st.integers(0, 20), min_size=1),
    n_spare=st.integers(0, 5),
    first=st.sets(st.integers(0, 20)),
)
def test_it_ends_where_it_should_within_the_room(
    before: set[int], after: set[int], n_spare: int, first: set[int]
) -> None:
    n_room = max(len(before), len(after)) + n_spare
    held = set(before)
    for part in plan_move(spans(before), spans(after), n_room, first):
        assert not layers(part.load) & held
        held |= layers(part.load)
        assert len(held) <= max(n_room, len(before) + 1)
        assert layers(part.leave) <= before - after
        held -= layers(part.leave)
    assert held == after
