"""Virtual swarms: the same seed gives the same table, and the figures say what they claim to."""

from __future__ import annotations

import itertools
import random

import pytest
from simulator.measures import best_cost, capacity, optimum
from simulator.population import draw_lifetime_s, draw_machine, draw_rest_s
from simulator.report import COLUMNS, simulate, table
from simulator.world import PROFILE, Node, World

from node.placement import Standing, survey
from swarm.routing import HOP_OVERHEAD_S
from swarm.terms import NodeId, Span


@pytest.fixture(scope="module")
def forming() -> World:
    """Forty nodes, half an hour after the first of them started: some still load."""
    world = World(40, seed=4)
    world.run(1800.0)
    return world


def test_the_same_seed_gives_the_same_table_and_another_one_does_not() -> None:
    rows = [simulate(12, seed, hours=1.0)[0] for seed in (3, 3, 4)]
    assert rows[0] == rows[1] != rows[2]
    head, *lines = table(rows).splitlines()
    assert len(lines) == 3 and all(name in head for name, _ in COLUMNS)
    assert lines[0] == lines[1]


def test_churn_is_as_stated_from_the_first_hour_on() -> None:
    """Of several swarms together: in one of sixty about 27 leave in an hour, and five more or fewer by chance."""
    worlds = [World(60, seed, churn_per_hour=0.5) for seed in range(1, 7)]
    for world in worlds:
        world.run(3600.0)
    n_died, node_s = sum(world.counts.n_died for world in worlds), sum(world.counts.node_s for world in worlds)
    assert 0.4 < n_died / (node_s / 3600.0) < 0.6


def test_lifetimes_have_the_mean_that_was_asked_for() -> None:
    draw = random.Random(2)
    lives = [draw_lifetime_s(draw, 100.0) for _ in range(40_000)]
    rests = [draw_rest_s(draw, 100.0) for _ in range(40_000)]
    assert 90 < sum(lives) / len(lives) < 110
    assert 270 < sum(rests) / len(rests) < 330, "of those met at any time the long-lived are more: E[x^2] / 2 E[x]"


def test_one_sum_for_all_lookers_is_what_each_would_add_up_alone(forming: World) -> None:
    facts = forming.table.live()
    assert any(fact.loaded_spans for fact in facts)
    view = forming._take_view()
    looked = [forming.nodes[fact.node_id] for fact in facts if fact.node_id in forming.nodes]
    assert len(looked) > 20
    for node in looked:
        me = Standing(node.node_id, PROFILE, node.placed_at_s, node.served, node.served)
        alone = survey(facts, 32, view.taken_s, me, view._usual)
        together = view.as_seen_by(me)
        assert alone.hosts.tolist() == together.hosts.tolist()
        assert alone.serving.tolist() == together.serving.tolist()
        assert alone.supply == pytest.approx(together.supply, abs=1e-6)
        assert alone.work == pytest.approx(together.work, abs=1e-6)


def test_what_is_counted_as_served_is_served(forming: World) -> None:
    hosts = [sum(idx in span for node in forming.serving() for span in node.served) for idx in range(32)]
    assert hosts == forming._n_hosts.tolist()
    assert forming.counts.hosts[-1][1] == min(hosts)


def node(draw: random.Random, number: int, span: Span) -> Node:
    return Node(NodeId(f"{number:052}"), draw_machine(draw), 0.0, (span,), (span,))


def test_capacity_is_what_a_flow_through_the_spans_comes_to() -> None:
    """Against all sets of layers: those who host any of a set share it, and no set may be asked for more."""
    draw = random.Random(9)
    for _ in range(30):
        spans = [*[Span(0, 2), Span(2, 4), Span(3, 6), Span(0, 6)][: draw.randrange(1, 5)], Span(0, 6)]
        nodes = [node(draw, number, span) for number, span in enumerate(spans)]
        speeds = [min(1 / n.machine.layer_time_s, n.machine.max_tokens_per_s * len(n.served[0])) for n in nodes]
        least = min(
            sum(s for s, n in zip(speeds, nodes, strict=True) if any(idx in n.served[0] for idx in asked)) / len(asked)
            for size in range(1, 7)
            for asked in itertools.combinations(range(6), size)
        )
        assert capacity(nodes, 6) == pytest.approx(least, rel=1e-6)


def test_no_placement_exceeds_the_optimum() -> None:
    draw = random.Random(5)
    for _ in range(30):
        machines = [node(draw, number, Span(0, 1)) for number in range(12)]
        for one in machines:
            start = draw.randrange(0, 12 - min(11, one.machine.n_layers))
            one.served = (Span(start, min(12, start + one.machine.n_layers)),)
        assert capacity(machines, 12) <= optimum(machines, 12) * (1 + 1e-6)


def test_the_best_route_is_the_cheapest_of_all() -> None:
    draw = random.Random(6)
    for _ in range(20):
        nodes = [
            node(draw, number, span) for number, span in enumerate([Span(0, 2), Span(0, 3), Span(2, 4), Span(1, 4)])
        ]
        client = draw_machine(draw)

        def cost(path: tuple[tuple[Node, Span], ...], client=client) -> float:  # type: ignore[no-untyped-def]
            total, before = 0.0, client
            for one, span in path:
                total += before.rtt_s(one.machine) / 2 + HOP_OVERHEAD_S + len(span) * one.machine.layer_time_s
                before = one.machine
            return total + before.rtt_s(client) / 2

        paths = [
            tuple(path)
            for cuts in (
                (0, 4),
                (0, 1, 4),
                (0, 2, 4),
                (0, 3, 4),
                (0, 1, 2, 4),
                (0, 1, 3, 4),
                (0, 2, 3, 4),
                (0, 1, 2, 3, 4),
            )
            for path in itertools.product(
                *(
                    [(n, Span(a, b)) for n in nodes if n.served[0].covers(Span(a, b))]
                    for a, b in itertools.pairwise(cuts)
                )
            )
        ]
        assert best_cost(nodes, client, 4) == pytest.approx(min(map(cost, paths)))
