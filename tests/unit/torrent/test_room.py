"""What goes when a node may keep less: never what it hosts, and first what others have."""

from __future__ import annotations

from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import BadArgument
from swarm.torrent.room import choose_evictions

PIECE = 10
N = 8


def size(pieces: Collection[int]) -> int:
    return PIECE * len(set(pieces))


def test_those_that_most_others_have_go_first() -> None:
    availability = [0, 5, 1, 3, 9, 9, 9, 9]
    assert choose_evictions({0, 1, 2, 3}, {4, 5}, size, availability, 6 * PIECE) == []
    assert choose_evictions({0, 1, 2, 3}, {4, 5}, size, availability, 4 * PIECE) == [1, 3]
    assert choose_evictions({0, 1, 2, 3}, {4, 5}, size, availability, 2 * PIECE) == [1, 3, 2, 0]


def test_a_limit_below_the_hosted_layers_is_refused() -> None:
    with pytest.raises(BadArgument, match="take 20 bytes on disk and --disk allows 19"):
        choose_evictions({0}, {4, 5}, size, [0] * N, 19)


@given(
    have=st.sets(st.integers(0, N - 1)),
    hosted=st.sets(st.integers(0, N - 1), min_size=1),
    availability=st.lists(st.integers(0, 9), min_size=N, max_size=N),
    spare=st.integers(0, 60),
)
def test_what_is_kept_fits_and_nothing_hosted_goes(
    have: set[int], hosted: set[int], availability: list[int], spare: int
) -> None:
    limit = size(hosted) + spare
    evicted = set(choose_evictions(have, hosted, size, availability, limit))
    assert evicted <= have - hosted
    assert size((have | hosted) - evicted) <= limit
    kept = have - hosted - evicted
    assert all(availability[gone] >= availability[stays] for gone in evicted for stays in kept)
