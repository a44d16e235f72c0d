"""Whom to believe about one's own reach, and whom to take for a relay: pure decisions."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.client.reach import Seen, Verdict, count_answers, is_inside, own_address, relays_for
from swarm.facts import NodeFact, NodeState, Reachability
from swarm.identity import NodeKey
from swarm.terms import Address, Infohash, Profile

KEYS = [NodeKey.generate() for _ in range(6)]
HERE, ELSEWHERE = "203.0.113.7", "198.51.100.66"
REACHED = Seen("192.0.2.1", HERE)
MISSED = Seen("192.0.2.2", HERE, "refused")
LIE = Seen("192.0.2.3", ELSEWHERE)


def fact(i: int, **changes: object) -> NodeFact:
    made = NodeFact(
        KEYS[i].node_id, Infohash("ab" * 20), Address("203.0.113.1", 7000 + i), 1, 1.0, 60.0, NodeState.SERVING, (),
        Profile("bf16"), 4, relay_places=1, reachability=Reachability.REACHABLE,
    )  # fmt: skip
    return replace(made, **changes)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([], Verdict(Reachability.UNKNOWN)),
        ([REACHED], Verdict(Reachability.REACHABLE, HERE, n_answers=1)),
        ([MISSED], Verdict(Reachability.UNREACHABLE, HERE, "refused", 1)),
        ([MISSED, REACHED], Verdict(Reachability.UNREACHABLE, HERE, "refused", 2)),
        ([LIE, MISSED], Verdict(Reachability.UNREACHABLE, HERE, "refused", 2)),
        ([LIE, REACHED], Verdict(Reachability.REACHABLE, HERE, n_answers=2)),
        ([MISSED, MISSED, LIE], Verdict(Reachability.UNREACHABLE, HERE, "refused", 3)),
        ([LIE, REACHED, REACHED], Verdict(Reachability.REACHABLE, HERE, n_answers=3)),
    ],
)
def test_most_answers_win_and_of_equal_ones_that_which_missed(answers: list[Seen], expected: Verdict) -> None:
    assert count_answers(answers, {HERE}) == expected


@pytest.mark.parametrize(
    ("other", "is_believed"),
    [("192.0.2.3", False), ("192.0.2.4", True), ("liar.example", True), ("2001:db8::1", True)],
)
def test_another_host_is_believed_when_two_places_say_so(other: str, is_believed: bool) -> None:
    verdict = count_answers([LIE, replace(LIE, by=other)], {HERE})
    assert (verdict.reachability is Reachability.REACHABLE) == is_believed
    assert verdict.host == ELSEWHERE and (is_believed or "--advertise" in verdict.problem)


@pytest.mark.parametrize(
    ("one", "other"), [("a.liar.example", "b.liar.example"), ("2001:db8::1", "2001:db8::2:2")]
)  # fmt: skip
def test_one_participant_by_two_names_is_one_place(one: str, other: str) -> None:
    verdict = count_answers([replace(LIE, by=one), replace(LIE, by=other)], {HERE})
    assert verdict.reachability is Reachability.UNREACHABLE


@given(st.lists(st.sampled_from([REACHED, MISSED, LIE]), min_size=3, max_size=3), st.permutations(range(3)))
def test_the_order_of_answers_does_not_matter_and_one_lie_among_three_is_outvoted(
    answers: list[Seen], order: list[int]
) -> None:
    verdict = count_answers(answers, {HERE})
    assert count_answers([answers[i] for i in order], {HERE}) == verdict
    for honest in (REACHED, MISSED):
        if answers.count(honest) == 2:
            assert verdict.host == HERE
            assert (verdict.reachability is Reachability.REACHABLE) == (honest is REACHED)


def test_relays_are_those_that_others_reach_the_nearest_first() -> None:
    facts = [
        fact(0),
        fact(1),
        fact(2, reachability=Reachability.UNKNOWN),
        fact(3, reachability=Reachability.UNREACHABLE),
        fact(4, relay_places=0),
        fact(5, address=Address("203.0.113.1", 7000, KEYS[5].node_id), relay=KEYS[0].node_id),
    ]
    rtts_s = {KEYS[1].node_id: 0.01, KEYS[2].node_id: 0.001, KEYS[0].node_id: 0.02}
    assert [f.node_id for f in relays_for(facts, rtts_s, frozenset())] == [KEYS[i].node_id for i in (1, 0, 2)]
    without = frozenset({KEYS[1].node_id})
    assert [f.node_id for f in relays_for(reversed(facts), rtts_s, without)] == [KEYS[i].node_id for i in (0, 2)]
    assert relays_for([fact(0, state=NodeState.DRAINING)], {}, frozenset()) == []


@pytest.mark.parametrize(
    ("host", "inside"),
    [
        ("192.168.1.4", True), ("10.0.0.1", True), ("172.20.1.1", True), ("100.64.3.2", True), ("127.0.0.1", True),
        ("fe80::1", True), ("fd00::2", True), ("localhost", True), ("203.0.113.9", False), ("2001:db8::1", False),
        ("172.32.0.1", False), ("node.example", False),
    ],
)  # fmt: skip
def test_what_the_internet_does_not_route_to_is_inside(host: str, inside: bool) -> None:
    assert is_inside(host) is inside


def test_a_node_is_called_as_its_owner_says_or_as_its_router_does() -> None:
    listening, told, mapped = Address("0.0.0.0", 7000), Address("node.example", 1), Address("203.0.113.2", 7001)
    assert own_address(listening, told, mapped) == told
    assert own_address(listening, None, mapped) == mapped
    assert own_address(listening, None, None).port == 7000
    assert not own_address(listening, None, None).is_unspecified
    assert own_address(Address("127.0.0.1", 9), None, None) == Address("127.0.0.1", 9)
