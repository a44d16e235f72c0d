"""Which layers a node takes when nobody said: as many as fit, where the swarm has fewest."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.hosting import choose_span
from node.hosting.choice import RESERVED_SHARE
from node.weights import PRESETS
from swarm.errors import BadArgument
from swarm.release import ModelArgs
from swarm.terms import Span

ARGS = dataclasses.replace(PRESETS["tiny-mixtral"].args, n_layers=8, windows=(None,) * 8)
ITEMSIZE = 2
LAYER = ARGS.n_layer_params * ITEMSIZE
OUTER = 2 * ARGS.vocab_size * ARGS.dim * ITEMSIZE


def memory_for(n_layers: float) -> int:
    """Enough for the embeddings, the head and so many layers, and not a KiB more."""
    return int((OUTER + n_layers * LAYER) / (1 - RESERVED_SHARE)) + 1024


def choose(hosts: list[int], n_layers: float, args: ModelArgs = ARGS) -> Span:
    return choose_span(args, hosts, memory_for(n_layers), ITEMSIZE)


@pytest.mark.parametrize("hosts", [[0] * 8, [5, 0, 0, 0, 0, 0, 0, 5]])
@pytest.mark.parametrize("n_layers", [8, 8.5, 100])
def test_the_whole_model_when_it_fits(hosts: list[int], n_layers: float) -> None:
    assert choose(hosts, n_layers) == Span(0, 8)


@pytest.mark.parametrize(("n_layers", "n_taken"), [(1, 1), (1.99, 1), (2, 2), (7.99, 7)])
def test_as_many_layers_as_fit_and_no_part_of_one(n_layers: float, n_taken: int) -> None:
    assert choose([0] * 8, n_layers) == Span(0, n_taken)


def test_wider_numbers_leave_room_for_fewer_layers() -> None:
    assert len(choose_span(ARGS, [0] * 8, memory_for(4), 2)) == 4
    assert len(choose_span(ARGS, [0] * 8, memory_for(4), 4)) < 3


@pytest.mark.parametrize(("bytes_per_value", "n_taken"), [(1.0, 6), (0.625, 8)])
def test_quantised_layers_leave_room_for_more_of_them(bytes_per_value: float, n_taken: int) -> None:
    assert len(choose_span(ARGS, [0] * 8, memory_for(3), ITEMSIZE, bytes_per_value)) == n_taken


@pytest.mark.parametrize(
    ("hosts", "span"),
    [
        ([1, 1, 1, 0, 0, 0, 1, 1], "3:6"),
        ([2, 2, 2, 2, 2, 1, 1, 1], "5:8"),
        ([3, 3, 3, 1, 3, 3, 3, 3], "1:4"),
        ([1, 1, 1, 2, 2, 0, 9, 9], "3:6"),  # a layer without any host stops the whole swarm; a rare one does not
        ([0, 1, 1, 1, 0, 0, 1, 1], "3:6"),
    ],
)
def test_the_layers_with_the_fewest_hosts(hosts: list[int], span: str) -> None:
    assert choose(hosts, 3) == Span.parse(span)


def test_ties_go_to_the_span_that_starts_first() -> None:
    assert choose([1] * 8, 3) == Span(0, 3)
    assert choose([1, 1, 0, 1, 1, 0, 1, 1], 2) == Span(1, 3)


@pytest.mark.parametrize("n_layers", [0.99, 0, -100])
def test_too_little_for_one_layer_is_refused_with_what_mends_it(n_layers: float) -> None:
    with pytest.raises(BadArgument, match=r"one layer of this model takes .* GB.*free some memory.*smaller dtype"):
        choose([0] * 8, n_layers)


@given(
    hosts=st.lists(st.integers(0, 5), min_size=1, max_size=40),
    memory_bytes=st.integers(0, 40 * LAYER),
    itemsize=st.sampled_from([2, 4]),
)
def test_what_is_chosen_fits_and_one_layer_more_would_not(hosts: list[int], memory_bytes: int, itemsize: int) -> None:
    args = dataclasses.replace(ARGS, n_layers=len(hosts), windows=(None,) * len(hosts))
    budget = memory_bytes * (1 - RESERVED_SHARE)

    def size(n_layers: int) -> int:
        return (2 * args.vocab_size * args.dim + n_layers * args.n_layer_params) * itemsize

    try:
        span = choose_span(args, hosts, memory_bytes, itemsize)
    except BadArgument:
        assert size(1) > budget - 1  # the budget is whole bytes
        return
    assert 0 <= span.start < span.end <= args.n_layers
    assert size(len(span)) <= budget
    assert len(span) == args.n_layers or size(len(span) + 1) > budget - 1
    fewest = sorted(hosts[span.start : span.end])
    for start in range(args.n_layers - len(span) + 1):
        other = sorted(hosts[start : start + len(span)])
        assert fewest < other or (fewest == other and span.start <= start) or start == span.start
