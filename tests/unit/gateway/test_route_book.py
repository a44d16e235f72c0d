"""The routes of answers that run, and of those that lately ended."""

from __future__ import annotations

from dataclasses import replace

import pytest

from swarm.client import Generation, Usage
from swarm.client.values import Timings
from swarm.facts import Hop, Route
from swarm.gateway.route_book import KEPT, RouteBook
from swarm.terms import Address, NodeId, Profile, Span

ROUTE = Route(
    (
        Hop(NodeId("a" * 52), Address("127.0.0.1", 1), Span(0, 2)),
        Hop(NodeId("b" * 52), Address("127.0.0.1", 2), Span(2, 6)),
    ),
    Profile("bf16"),
)
BEGUN = Generation("", (), "cancelled", Usage(3, 0), (), None, Timings(0.0, 0.0, 0, 0), 1)
UNDER_WAY = replace(BEGUN, ids=(5, 6, 7), route=ROUTE, timings=Timings(0.5, 1.5, 1, 3))


def test_an_answer_is_listed_while_it_runs_and_found_after() -> None:
    book = RouteBook()
    now = BEGUN
    with book.following("one", "model", lambda: now):
        assert [taken.route for taken in book.running()] == [None]
        now = UNDER_WAY
        (taken,) = book.running("model")
        assert taken.fields() == {
            "id": "one",
            "model": "model",
            "hops": [{"node_id": "a" * 52, "span": [0, 2]}, {"node_id": "b" * 52, "span": [2, 6]}],
            "n_tokens": 3,
            "tokens_per_s": 2.0,
            "n_replays": 1,
            "running_s": 1.5,
            "is_running": True,
        }
        assert book.running("another model") == ()
        assert book.find("one") == taken
    assert book.running() == ()
    assert book.find("one") == replace(taken, is_running=False)
    assert book.find("two") is None


def test_an_answer_that_fails_is_no_longer_running() -> None:
    book = RouteBook()
    with pytest.raises(RuntimeError), book.following("one", "model", lambda: UNDER_WAY):
        raise RuntimeError
    assert book.running() == ()
    assert book.find("one") is not None


def test_several_answers_under_one_id_are_all_listed() -> None:
    book = RouteBook()
    with book.following("one", "model", lambda: BEGUN), book.following("one", "model", lambda: UNDER_WAY):
        assert [taken.n_tokens for taken in book.running()] == [0, 3]
        found = book.find("one")
        assert found is not None and found.n_tokens == 3


def test_only_the_last_ended_ones_are_kept() -> None:
    book = RouteBook()
    for i in range(KEPT + 1):
        with book.following(str(i), "model", lambda: BEGUN):
            pass
    assert book.find("0") is None
    assert book.find("1") is not None and book.find(str(KEPT)) is not None
