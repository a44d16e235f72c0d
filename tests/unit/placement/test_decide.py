"""What a node should host: holes first, then the narrowest layers, and never the last copy of anything given up."""

from __future__ import annotations

import dataclasses
import random
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.placement import Assignment, Budget, PlacementConfig, Standing, decide, survey
from swarm.facts import NodeFact, NodeState
from swarm.terms import Address, ExpertRange, Infohash, NodeId, Profile, Span

CONFIG = PlacementConfig()
PROFILE = Profile("bf16")
NOW_S = 1000.0


def node_id(number: int) -> NodeId:
    digits = "abcdefghijklmnopqrstuvwxyz234567"
    text = ""
    for _ in range(4):
        number, digit = divmod(number, 32)
        text = digits[digit] + text
    return NodeId("n" * 48 + text)


def fact(number: int, *spans: Span, n_layers: int = 12, **fields: object) -> NodeFact:
    known: dict[str, object] = {
        "state": NodeState.SERVING,
        "layer_time_s": 0.01,
        "issued_at_s": NOW_S - 1,
        "ttl_s": 60.0,
        "placed_at_s": 10.0 + number,
        "free_sessions": 8,
        "profile": PROFILE,
    }
    return NodeFact(
        node_id=node_id(number),
        release=Infohash("0" * 40),
        address=Address("127.0.0.1", 1000 + number),
        seq=1,
        spans=spans,
        n_layers=n_layers,
        **{**known, **fields},  # type: ignore[arg-type]
    )


def standing(number: int = 999, spans: tuple[Span, ...] = (), **fields: object) -> Standing:
    known: dict[str, object] = {"placed_at_s": NOW_S, "served": spans}
    return Standing(node_id(number), PROFILE, spans=spans, **{**known, **fields})  # type: ignore[arg-type]


def choose(facts: list[NodeFact], n_fitting: int, me: Standing | None = None, n_layers: int = 12) -> Assignment:
    return decide(facts, Budget(n_fitting, 0.01), me or standing(), CONFIG, n_layers=n_layers, now_s=NOW_S)


def test_the_first_node_begins_at_the_beginning() -> None:
    assert choose([], 5).spans == (Span(0, 5),)
    assert choose([], 100).spans == (Span(0, 12),)


def test_what_nobody_hosts_comes_first() -> None:
    facts = [fact(1, Span(0, 4)), fact(2, Span(8, 12), layer_time_s=1e6)]
    assignment = choose(facts, 4)
    assert assignment.spans == (Span(4, 8),)
    assert "no other node hosts layers 4:8" in assignment.reasons


@pytest.mark.parametrize(("expert_idxs", "is_whole"), [((2, 3), True), ((2,), False)])
def test_a_trunk_is_a_layer_where_all_of_its_experts_have_hosts(expert_idxs: tuple[int, ...], is_whole: bool) -> None:
    layers = Span(0, 6)
    trunk = fact(1, trunks=(layers,), experts=(ExpertRange(layers, (0, 1)),), n_experts=4)
    others = fact(2, experts=(ExpertRange(layers, expert_idxs),), n_experts=4)
    view = survey([trunk, others], 12, NOW_S, standing())
    assert list(view.holes) == [not is_whole] * 6 + [True] * 6
    assert choose([trunk, others], 6).spans == ((Span(6, 12),) if is_whole else (Span(0, 6),))


def test_then_the_layers_that_the_least_goes_through() -> None:
    facts = [fact(1, Span(0, 4)), fact(2, Span(4, 8), layer_time_s=0.1), fact(3, Span(8, 12))]
    assert choose(facts, 4).spans == (Span(4, 8),)


def test_holes_apart_from_each_other_are_covered_in_several_runs() -> None:
    facts = [fact(1, Span(1, 11))]
    assert choose(facts, 2).spans == (Span(0, 1), Span(11, 12))
    assert sum(map(len, choose(facts, 4).spans)) == 4


@pytest.mark.parametrize(
    "fields",
    [
        {"state": NodeState.DRAINING},
        {"state": NodeState.LEFT},
        {"ttl_s": 0.5},
        {"profile": Profile("bf16", "int8")},
        {"n_layers": 13},
        {"state": NodeState.JOINING, "placed_at_s": NOW_S + 1},
    ],
    ids=str,
)
def test_who_does_not_count_fills_no_hole(fields: dict[str, object]) -> None:
    assert choose([fact(1, Span(0, 6), **fields)], 6).spans == (Span(0, 6),)


def test_an_exact_profile_fills_the_holes_of_the_plain_one() -> None:
    assert choose([fact(1, Span(0, 6), profile=Profile("bf16", "", "amx-3fa2c1"))], 6).spans == (Span(6, 12),)


def test_of_two_that_chose_the_same_the_later_chooses_again() -> None:
    """Both see each other's claim: exactly one of them yields, whoever's clock is wrong."""
    first, second = standing(1, placed_at_s=NOW_S), standing(2, placed_at_s=NOW_S + 0.5)
    claim = choose([], 6, first).spans
    assert claim == choose([], 6, second).spans
    claims = [
        fact(number, *claim, state=NodeState.JOINING, placed_at_s=me.placed_at_s)
        for number, me in ((1, first), (2, second))
    ]
    keeps = choose(claims, 6, dataclasses.replace(first, spans=claim))
    yields = choose(claims, 6, dataclasses.replace(second, spans=claim))
    assert (keeps.spans, keeps.moves) == (claim, False)
    assert (yields.spans, yields.moves) == ((Span(6, 12),), True)


def test_of_two_that_want_to_leave_the_same_the_later_stays() -> None:
    hosted = (Span(0, 6),)
    others = [fact(3, Span(6, 12), layer_time_s=1.0)]
    leaving = {"spans": (Span(0, 12),), "loaded_spans": hosted, "state": NodeState.JOINING, "leaving_spans": hosted}
    early, late = (dataclasses.replace(fact(n), placed_at_s=NOW_S + n, **leaving) for n in (1, 2))  # type: ignore[arg-type]
    first = choose([late, *others], 6, standing(1, hosted, placed_at_s=NOW_S + 1))
    second = choose([early, *others], 6, standing(2, hosted, placed_at_s=NOW_S + 2))
    assert first.spans == (Span(6, 12),)
    assert second.spans == hosted


def test_a_node_that_claims_the_speed_of_a_thousand_counts_for_a_few() -> None:
    honest = [fact(n, Span(4 * (n % 3), 4 * (n % 3) + 4)) for n in range(30)]
    liar = fact(99, Span(0, 4), layer_time_s=1e-12, throughput=1e9)
    supply = survey([*honest, liar], 12, NOW_S, standing()).supply
    assert supply[0] <= supply[4] * 3


def test_a_balanced_swarm_stands_still() -> None:
    facts = [fact(n, Span(4 * (n % 3), 4 * (n % 3) + 4)) for n in range(30)]
    for me in facts:
        stays = choose(facts, 4, Standing(me.node_id, PROFILE, NOW_S, me.spans, me.spans))
        assert not stays.moves and stays.spans == me.spans


def test_of_many_who_see_the_same_gap_at_once_about_as_many_move_as_close_it() -> None:
    """Forty on one third and twenty on each other one: about ten moves even it out, where all decide on one view."""
    together = dataclasses.replace(CONFIG, lag_s=CONFIG.interval_s)
    facts = [fact(n, Span(0, 4) if n < 40 else Span(4 * (n % 2) + 4, 4 * (n % 2) + 8)) for n in range(80)]
    n_moving = 0
    for me in facts[:40]:
        here = Standing(me.node_id, PROFILE, NOW_S, me.spans, me.spans)
        n_moving += decide(facts, Budget(4, 0.01), here, together, n_layers=12, now_s=NOW_S).moves
    assert 4 <= n_moving <= 20


runs = st.tuples(st.integers(0, 10), st.integers(1, 6)).map(lambda run: Span(run[0], min(12, run[0] + run[1])))
some_facts = st.lists(
    st.builds(
        lambda number, span, state, slow, placed, leaves: fact(
            number,
            span,
            state=state,
            layer_time_s=slow,
            placed_at_s=placed,
            loaded_spans=(span,) if state is NodeState.JOINING and leaves else (),
            leaving_spans=(span,) if leaves else (),
        ),
        st.integers(1, 40),
        runs,
        st.sampled_from(NodeState),
        st.sampled_from([0.0, 0.001, 0.01, 0.1]),
        st.sampled_from([0.0, NOW_S - 5, NOW_S + 5]),
        st.booleans(),
    ),
    max_size=12,
    unique_by=lambda f: f.node_id,
)


def layers(spans: tuple[Span, ...]) -> set[int]:
    return {idx for span in spans for idx in span}


@given(facts=some_facts, n_fitting=st.integers(0, 14), hosted=st.none() | runs)
def test_no_decision_opens_a_hole_and_holes_go_first(
    facts: list[NodeFact], n_fitting: int, hosted: Span | None
) -> None:
    mine = (hosted,) if hosted else ()
    me = standing(spans=mine)
    assignment = choose(facts, n_fitting, me)
    view = survey(facts, 12, NOW_S, me)
    had, has = layers(mine), layers(assignment.spans)
    sole = {idx for idx in had if view.serving[idx] == 0}
    holes = {idx for idx in range(12) if view.hosts[idx] == 0}
    assert sole <= has
    assert len(has) <= max(n_fitting, len(sole)) or not assignment.moves
    needed = holes | sole
    assert len(has & needed) >= min(max(n_fitting, len(sole)), len(needed))
    assert assignment.moves == (assignment.spans != mine)
    assert assignment.reasons


@given(facts=some_facts, n_fitting=st.integers(1, 14), seed=st.randoms())
def test_the_order_of_the_facts_does_not_matter(facts: list[NodeFact], n_fitting: int, seed: random.Random) -> None:
    shuffled = facts.copy()
    seed.shuffle(shuffled)
    assert choose(shuffled, n_fitting) == choose(facts, n_fitting)


@given(facts=some_facts, n_fitting=st.integers(1, 14))
def test_having_moved_a_node_stays(facts: list[NodeFact], n_fitting: int) -> None:
    went = choose(facts, n_fitting)
    again = choose(facts, n_fitting, standing(spans=went.spans))
    assert not again.moves and again.spans == went.spans


def lines_run(facts: list[NodeFact]) -> int:
    """How many lines of Python a decision over these takes: work that no other process can lengthen."""
    n_lines = 0

    def trace(_frame: object, event: str, _argument: object) -> object:
        nonlocal n_lines
        n_lines += event == "line"
        return trace

    tracing_before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        choose(facts, 6)
    finally:
        sys.settrace(tracing_before)
    return n_lines


def test_the_work_grows_with_the_facts_and_not_faster() -> None:
    """A decision over 10,000 facts is in the milliseconds that `scripts/simulate` tells."""
    facts = [fact(n, Span(n % 10, n % 10 + 2)) for n in range(400)]
    assert lines_run(facts) < 2.5 * lines_run(facts[:200])
    assert lines_run(facts) < 60 * len(facts)


def test_a_claim_of_which_nothing_comes_expires_and_a_slow_one_goes_on() -> None:
    now_s = 100_000.0
    me = standing(placed_at_s=now_s)
    hour_s = 3600.0

    def hosts(age_s: float, share: float = 0.0, **fields: object) -> int:
        claim = fact(
            1, Span(0, 12), state=NodeState.JOINING, issued_at_s=now_s - 1, placed_at_s=now_s - age_s,
            needed_bytes=1000, fetched_bytes=int(1000 * share), **fields,
        )  # fmt: skip
        return int(survey([claim], 12, now_s, me).hosts[3])

    assert hosts(60.0) == 1
    assert hosts(now_s - 1.0) == hosts(hour_s) == 0
    assert hosts(hour_s, share=0.1) == 1
    assert hosts(9 * hour_s, share=0.1) == 0
    assert hosts(9 * hour_s, loaded_spans=(Span(3, 4),)) == 1, "what is loaded is served"
    assert hosts(now_s) == 1, "an owner's choice"
