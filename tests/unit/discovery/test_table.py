"""The fact table: newest wins, old words expire, lies are refused."""

import base64
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.discovery import FactTable, RttBook, check_fact, sign_fact
from swarm.discovery.table import TIMES_TOLD
from swarm.errors import RemoteProtocolError, Unauthenticated
from swarm.facts import MAX_TAG, NodeFact, NodeState, SignedFact
from swarm.identity import NodeKey
from swarm.terms import Address, Infohash, NodeId, Profile, Span, id_tag

RELEASE = Infohash("ab" * 20)
KEYS = [NodeKey.generate() for _ in range(3)]
MANY_KEYS = [NodeKey.generate() for _ in range(12)]


class Clock:
    now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


def fact(key: NodeKey, seq: int, issued_at_s: float = 1_000_000.0, **changes: object) -> NodeFact:
    made = NodeFact(
        node_id=key.node_id,
        release=RELEASE,
        address=Address("127.0.0.1", 7000),
        seq=seq,
        issued_at_s=issued_at_s,
        ttl_s=30.0,
        state=NodeState.SERVING,
        spans=(Span(0, 4),),
        profile=Profile("fp32"),
        n_layers=8,
        free_sessions=3,
    )
    return replace(made, **changes)


def test_a_signed_fact_survives_and_a_changed_one_does_not() -> None:
    signed = sign_fact(KEYS[0], fact(KEYS[0], 1))
    assert check_fact(signed) == signed.fact
    with pytest.raises(Unauthenticated):
        check_fact(SignedFact(signed.fact, signed.payload, bytes(64)))
    with pytest.raises(Unauthenticated):
        check_fact(sign_fact(KEYS[1], fact(KEYS[0], 1)))


def test_a_changed_fact_is_the_same_but_for_that() -> None:
    one = fact(KEYS[0], 1, rtts=((7, 0.5),), queue_s=0.25)
    changes = {"issued_at_s": 9.0, "spans": (Span(0, 2),)}
    assert one.changed(**changes) == replace(one, **changes) != one


def test_the_newest_fact_of_a_node_wins_in_any_order() -> None:
    table = FactTable(RELEASE, Clock())
    assert table.add(sign_fact(KEYS[0], fact(KEYS[0], 2, free_sessions=2)))
    assert not table.add(sign_fact(KEYS[0], fact(KEYS[0], 1, free_sessions=1)))
    assert not table.add(sign_fact(KEYS[0], fact(KEYS[0], 2, free_sessions=2)))
    assert [f.free_sessions for f in table.live()] == [2]


def test_a_fact_expires_by_the_receivers_clock_and_a_replay_does_not_revive_it() -> None:
    clock = Clock()
    table = FactTable(RELEASE, clock)
    signed = sign_fact(KEYS[0], fact(KEYS[0], 1))
    table.add(signed)
    clock.now_s += 29.9
    assert len(table.live()) == 1
    clock.now_s += 0.2
    assert table.live() == () and table.signed() == ()
    assert not table.add(signed)
    assert table.live() == ()


def test_an_old_fact_is_not_news_to_a_table_that_never_saw_it() -> None:
    clock = Clock()
    clock.now_s += 30 + 121
    assert not FactTable(RELEASE, clock).add(sign_fact(KEYS[0], fact(KEYS[0], 1)))


def test_a_skewed_clock_does_no_harm_within_two_minutes_and_is_refused_beyond() -> None:
    table = FactTable(RELEASE, Clock())
    for key, skew_s in ((KEYS[0], -100.0), (KEYS[1], 100.0)):
        table.add(sign_fact(key, fact(key, 1, 1_000_000.0 + skew_s)))
    assert [f.issued_at_s for f in table.live()] == [1_000_000.0, 1_000_000.0]
    with pytest.raises(RemoteProtocolError, match="clock"):
        table.add(sign_fact(KEYS[2], fact(KEYS[2], 1, 1_000_000.0 + 121)))


def test_a_dead_node_stays_hidden_until_it_speaks_again() -> None:
    table = FactTable(RELEASE, Clock())
    table.add(sign_fact(KEYS[0], fact(KEYS[0], 1)))
    table.forget_address(Address("127.0.0.1", 7000), except_for=None)
    assert table.live() == ()
    assert not table.add(sign_fact(KEYS[0], fact(KEYS[0], 1)))
    assert table.add(sign_fact(KEYS[0], fact(KEYS[0], 2)))
    assert len(table.live()) == 1


def test_another_releases_fact_and_an_endless_one_are_refused() -> None:
    table = FactTable(RELEASE, Clock())
    with pytest.raises(RemoteProtocolError, match="release"):
        table.add(sign_fact(KEYS[0], fact(KEYS[0], 1, release=Infohash("cd" * 20))))
    with pytest.raises(RemoteProtocolError):
        table.add(sign_fact(KEYS[0], fact(KEYS[0], 1, ttl_s=601.0)))


def test_one_bad_fact_among_many_spoils_none_of_them() -> None:
    table = FactTable(RELEASE, Clock())
    good = [sign_fact(key, fact(key, 1)) for key in KEYS]
    bad = SignedFact(good[0].fact, good[0].payload, bytes(64))
    assert table.add_all([bad, *good]) == 3


def test_the_table_is_bounded_and_keeps_whom_it_met() -> None:
    clock = Clock()
    table = FactTable(RELEASE, clock, max_nodes=2)
    assert table.add_all(sign_fact(key, fact(key, 1)) for key in KEYS[:2]) == 2
    table.confirm(KEYS[0].node_id)
    assert table.add(sign_fact(KEYS[2], fact(KEYS[2], 1)))  # in the place of the one that was only talked about
    assert {f.node_id for f in table.live()} == {KEYS[0].node_id, KEYS[2].node_id}
    table.confirm(KEYS[2].node_id)
    assert not table.add(sign_fact(KEYS[1], fact(KEYS[1], 1)))
    clock.now_s += 30 + 121
    assert table.add(sign_fact(KEYS[1], fact(KEYS[1], 1, clock.now_s)))


def test_confirmed_nodes_are_passed_on_first() -> None:
    table = FactTable(RELEASE, Clock())
    table.add_all(sign_fact(key, fact(key, 1, 1_000_000.0 + n)) for n, key in enumerate(KEYS))
    table.confirm(KEYS[0].node_id)
    assert [s.fact.node_id for s in table.signed()] == [KEYS[0].node_id, KEYS[2].node_id, KEYS[1].node_id]
    assert [f.node_id for f in table.confirmed()] == [KEYS[0].node_id]


def test_who_answers_at_an_address_displaces_who_only_claims_it() -> None:
    table = FactTable(RELEASE, Clock())
    table.add_all(sign_fact(key, fact(key, 1)) for key in KEYS[:2])  # both claim 127.0.0.1:7000
    table.forget_address(Address("127.0.0.1", 7000), except_for=KEYS[1].node_id)
    assert [f.node_id for f in table.live()] == [KEYS[1].node_id]


@given(st.permutations([(k, s) for k in range(2) for s in range(4)]))
def test_any_order_of_arrival_leaves_the_same_table(order: list[tuple[int, int]]) -> None:
    table = FactTable(RELEASE, Clock())
    for k, seq in order:
        table.add(sign_fact(KEYS[k], fact(KEYS[k], seq, free_sessions=seq)))
    assert sorted((f.node_id, f.free_sessions) for f in table.live()) == sorted((KEYS[k].node_id, 3) for k in range(2))


def test_a_node_that_left_is_hidden_at_once_and_its_last_word_passed_on() -> None:
    table = FactTable(RELEASE, Clock())
    table.add_all([sign_fact(KEYS[0], fact(KEYS[0], 1)), sign_fact(KEYS[1], fact(KEYS[1], 1))])
    table.confirm(KEYS[0].node_id)
    assert table.add(sign_fact(KEYS[0], fact(KEYS[0], 2, state=NodeState.LEFT, spans=())))
    assert [f.node_id for f in table.live()] == [KEYS[1].node_id] and table.confirmed() == ()
    assert (KEYS[0].node_id, 2) in [(s.fact.node_id, s.fact.seq) for s in table.signed()]
    assert not table.add(sign_fact(KEYS[0], fact(KEYS[0], 1))), "what it said before does not bring it back"
    assert table.add(sign_fact(KEYS[0], fact(KEYS[0], 3)))
    assert len(table.live()) == 2


def test_news_is_told_a_few_times_and_then_only_to_who_asks() -> None:
    table = FactTable(RELEASE, Clock())
    table.add(sign_fact(KEYS[0], fact(KEYS[0], 1)))
    assert [len(table.news(5)) for _ in range(TIMES_TOLD + 1)] == [1] * TIMES_TOLD + [0]
    table.add(sign_fact(KEYS[0], fact(KEYS[0], 2)))
    table.add(sign_fact(KEYS[1], fact(KEYS[1], 1)))
    assert len(table.news(1)) == 1
    assert len(table.signed()) == 2


@given(n=st.integers(0, 12), limit=st.integers(1, 5))
def test_parts_of_what_is_known_make_up_the_whole(n: int, limit: int) -> None:
    table = FactTable(RELEASE, Clock())
    table.add_all(sign_fact(key, fact(key, 7)) for key in MANY_KEYS[:n])
    parts, first = [], 0
    while not parts or parts[-1].last != MAX_TAG:
        parts.append(table.known(limit, first))
        first = parts[-1].last + 1
    assert [part.first for part in parts] == [0, *(part.last + 1 for part in parts[:-1])]
    assert all(part.first <= tag <= part.last for part in parts for tag in part.seqs)
    assert max(len(part.seqs) for part in parts) <= limit
    whole = {tag: seq for part in parts for tag, seq in part.seqs.items()}
    assert whole == {id_tag(key.node_id): 7 for key in MANY_KEYS[:n]}
    for key in MANY_KEYS[:n]:
        lacking = [seq for seq in (6, 7, 8) for part in parts if part.lacks(fact(key, seq))]
        assert lacking == [8]


class CountedId(str):
    """A node id that counts how often two are compared."""

    n_compared = 0

    def __lt__(self, other: str) -> bool:
        CountedId.n_compared += 1
        return str.__lt__(self, other)


def test_to_read_a_large_table_sorts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    table = FactTable(RELEASE, Clock(), check=lambda signed: signed.fact)
    for i in range(1000):
        node_id = CountedId(base64.b32encode(i.to_bytes(32, "little")).decode().lower().rstrip("="))
        made = fact(KEYS[0], 1, node_id=node_id)
        table.add(SignedFact(made, bytes(8), bytes(64)))
        if i % 3 == 0:
            table.confirm(NodeId(node_id))
    CountedId.n_compared = 0
    monkeypatch.setattr("swarm.terms.base64.b32decode", None)
    assert len(table.live()) == len(table.signed()) == len(table.known(1000).seqs) == 1000
    assert len(table.confirmed()) == 334
    assert all(signed.fact.node_id in {f.node_id for f in table.confirmed()} for signed in table.news(334))
    assert not any(table.known(1000).lacks(one) for one in table.live())
    assert CountedId.n_compared == 0


@given(st.lists(st.floats(0.001, 10.0), min_size=1, max_size=9))
def test_a_round_trip_is_the_shortest_of_the_last_few(samples_s: list[float]) -> None:
    book = RttBook()
    for sample_s in samples_s:
        book.note(KEYS[0].node_id, sample_s)
        book.note(KEYS[1].node_id, 20.0)
    assert book.rtts_s() == {KEYS[0].node_id: min(samples_s[-3:]), KEYS[1].node_id: 20.0}
    everybody = frozenset(key.node_id for key in KEYS)
    assert [tag for tag, _ in book.nearest(5, everybody)] == [id_tag(key.node_id) for key in KEYS[:2]]
    assert len(book.nearest(1, everybody)) == 1
    assert book.nearest(5, frozenset()) == ()
