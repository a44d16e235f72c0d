"""In which order a node asks for its pieces: the small files, then layer by layer."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from node.hosting.loading import _priorities, brought_forward
from swarm.release import FetchPlan, Part
from swarm.terms import ExpertId

Pieces = tuple[int, ...]


def plan(small: Pieces, *parts: Pieces) -> FetchPlan:
    return FetchPlan(
        needed_bytes=1,
        companion_bytes=1,
        fetched_bytes=2,
        small_pieces=small,
        pieces_by_layer=tuple(enumerate(parts)),
        all_pieces=frozenset(small).union(*parts),
    )


def test_four_quarters_in_four_steps() -> None:
    priorities = _priorities(plan((), *((piece,) for piece in range(8))))
    assert [priorities[piece] for piece in range(8)] == [7, 7, 6, 6, 5, 5, 4, 4]


def test_small_files_come_with_the_first_layer_wherever_they_lie() -> None:
    """Without them no layer can be loaded, nor anything be told to others."""
    priorities = _priorities(plan((3, 9), (0,), (1,), (2,), (3, 4)))
    assert priorities == {9: 7, 3: 7, 0: 7, 1: 6, 2: 5, 4: 4}


def test_a_piece_that_two_layers_share_comes_with_the_earlier_one() -> None:
    assert _priorities(plan((), (0, 1), (1, 2), (2, 3), (3,))) == {0: 7, 1: 7, 2: 6, 3: 5}


def test_layers_that_nobody_serves_come_first_and_the_model_s_ends_with_them() -> None:
    parts = (("embeddings", (0,)), (0, (1,)), (1, (2,)), (2, (3,)), ("head", (4,)), (ExpertId(1, 0), (5,)))
    whole = dataclasses.replace(plan(()), pieces_by_layer=parts, all_pieces=frozenset(range(6)))

    def order(first: set[int]) -> list[Part]:
        return [part for part, _ in brought_forward(whole, first, 3).pieces_by_layer]

    assert order(set()) == order({0, 1, 2}) == [part for part, _ in parts]
    assert order({2}) == [2, "head", "embeddings", 0, 1, ExpertId(1, 0)]
    assert order({0}) == ["embeddings", 0, 1, 2, "head", ExpertId(1, 0)]
    assert _priorities(brought_forward(whole, {2}, 3))[3] == 7


@given(
    small=st.frozensets(st.integers(0, 30), max_size=4),
    parts=st.lists(st.frozensets(st.integers(0, 30), min_size=1, max_size=6), min_size=1, max_size=12),
)
def test_earlier_parts_are_never_behind_later_ones(small: frozenset[int], parts: list[frozenset[int]]) -> None:
    fetch = plan(tuple(sorted(small)), *(tuple(sorted(part)) for part in parts))
    priorities = _priorities(fetch)
    assert priorities.keys() == fetch.all_pieces, "each piece is asked for"
    assert all(1 <= priority <= 7 for priority in priorities.values())
    assert all(priorities[piece] == 7 for piece in (*small, *parts[0]))
    seen = set(small)
    latest = 7
    for part in parts:
        assert all(priorities[piece] <= latest for piece in part - seen)
        latest = min(latest, *(priorities[piece] for piece in part))
        seen |= part
