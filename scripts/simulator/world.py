"""Virtual time, and what happens in it: nodes that join, claim, load, serve, move, and vanish without a word."""

from __future__ import annotations

import bisect
import heapq
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from node.placement import (
    Assignment,
    Budget,
    PlacementConfig,
    Standing,
    Survey,
    median_speed,
    place,
    plan_move,
    survey,
)
from simulator.population import ARGS, LAYER_BYTES, Machine, draw_lifetime_s, draw_machine, draw_rest_s
from swarm.discovery import DiscoveryConfig, FactTable
from swarm.facts import NodeFact, NodeState, SignedFact
from swarm.terms import Address, Infohash, NodeId, Profile, Span, merge_spans, subtract_spans

RELEASE = Infohash("ab" * 20)
PROFILE = Profile("bf16", "int8")
HOUR_S = 3600.0
START_S = 1e9
FORMATION_S = 600.0
"""Within so long the first nodes start, each at a moment of its own."""

CHURN_PER_HOUR = 0.1
N_AGREED = 2

_LAST = Standing(NodeId("~"), PROFILE, math.inf)
"""Who comes after everybody."""

Life = Iterator[float]
"""A course of events: yields for how long nothing happens to it."""


@dataclass(slots=True, eq=False)
class Node:
    """One machine that is there. served: loaded, and open to sessions. claimed: what it is about to serve."""

    node_id: NodeId
    machine: Machine
    dies_s: float
    served: tuple[Span, ...] = ()
    claimed: tuple[Span, ...] = ()
    placed_at_s: float = 0.0
    seq: int = 0
    is_alive: bool = True

    @property
    def budget(self) -> Budget:
        return Budget(self.machine.n_layers, self.machine.layer_time_s, self.machine.max_tokens_per_s)


@dataclass(slots=True)
class Counts:
    """What happened. uncovered_s: while some layer had no host, since the first moment when all had one.
    too_small_s: the part of it in which all machines together had no room for the model.
    """

    first_covered_s: float = math.inf
    uncovered_s: float = 0.0
    too_small_s: float = 0.0
    n_moves: int = 0
    n_look_ups: int = 0
    n_died: int = 0
    node_s: float = 0.0
    hosts: list[tuple[float, int]] = field(default_factory=list)  # (time, hosts of the rarest layer)


class World:
    """n nodes, one taking the place of each that leaves. Run it, then look at its counts, nodes and table."""

    def __init__(self, n_nodes: int, seed: int, churn_per_hour: float = CHURN_PER_HOUR) -> None:
        self.now_s = START_S
        self.counts = Counts()
        self.nodes: dict[NodeId, Node] = {}
        self.table = FactTable(RELEASE, lambda: self.now_s, 4 * n_nodes + 100, check=lambda signed: signed.fact)
        self.discovery, self.placement = DiscoveryConfig(), PlacementConfig()
        self._draw = random.Random(seed)
        self._mean_life_s = HOUR_S / churn_per_hour
        self._n_drawn = 0
        self._n_hosts = np.zeros(ARGS.n_layers, dtype=np.int64)
        self._agenda: list[tuple[float, int, Node | None, Life]] = []
        self._n_entries = 0
        self._view_age_s = 1.0 if n_nodes <= 100 else 5.0
        self._view: _View | None = None
        rounds = math.log(max(2, n_nodes)) / math.log(1 + self.discovery.fanout)
        self._news_s = 0.5 * self.discovery.exchange_interval_s * math.ceil(rounds)
        for _ in range(n_nodes):
            self._expect(self._draw.uniform(0, FORMATION_S), draw_rest_s(self._draw, self._mean_life_s))

    def run(self, until_s: float) -> None:
        """Let time pass until so long after the start."""
        end_s = START_S + until_s
        while self._agenda and self._agenda[0][0] <= end_s:
            at_s, _, node, life = heapq.heappop(self._agenda)
            self._pass_to(at_s)
            if node is not None and not node.is_alive:
                continue
            if (delay_s := next(life, None)) is not None:
                self._later(delay_s, node, life)
        self._pass_to(end_s)

    @property
    def elapsed_s(self) -> float:
        return self.now_s - START_S

    @property
    def _fact_ttl_s(self) -> float:
        return self.discovery.ttl_among(self.table.n_nodes)

    def serving(self) -> list[Node]:
        """Who is there and serves something, in the order of coming."""
        return [node for node in self.nodes.values() if node.served]

    # -- a node's life -------------------------------------------------------------------------------------------

    def _expect(self, delay_s: float, lifetime_s: float) -> None:
        """Somebody comes in delay_s, and stays for lifetime_s."""
        self._n_drawn += 1
        node = Node(_node_id(self._n_drawn), draw_machine(self._draw), self.now_s + delay_s + lifetime_s)
        self._later(delay_s, None, self._come(node))

    def _come(self, node: Node) -> Life:
        self.nodes[node.node_id] = node
        self._later(node.dies_s - self.now_s, None, self._die(node))
        self._later(self._fact_ttl_s / 3, node, self._renew(node))
        self._later(0.0, node, self._live(node))
        yield from ()

    def _die(self, node: Node) -> Life:
        node.is_alive = False
        self._serve(node, ())
        del self.nodes[node.node_id]
        self.counts.n_died += 1
        self._expect(self._draw.expovariate(1 / 30.0), draw_lifetime_s(self._draw, self._mean_life_s))
        yield from ()

    def _renew(self, node: Node) -> Life:
        while True:
            if node.seq:
                self._say(node)
            yield self._fact_ttl_s / 3

    def _live(self, node: Node) -> Life:
        """As node.moving's Claims and Mover do it."""
        yield from self._refresh()
        node.placed_at_s = self.now_s
        choice = yield from self._settle(node, self._look(node, ()))
        yield from self._load(node, choice.spans)
        while True:
            yield self.placement.interval_s * self._draw.uniform(0.5, 1.5)
            before_s, node.placed_at_s = node.placed_at_s, self.now_s
            wish = self._look(node, node.served)
            if wish.moves:
                wish = yield from self._settle(node, wish)
            if wish.spans == node.served:
                node.placed_at_s = before_s
                self._claim(node, node.served)
                continue
            self.counts.n_moves += 1
            yield from self._move(node, wish.spans)

    def _settle(self, node: Node, choice: Assignment) -> Iterator[float]:
        n_agreed = 0
        self._claim(node, choice.spans)
        while n_agreed < N_AGREED:
            yield self.placement.settle_s * self._draw.uniform(0.5, 1.0)
            yield from self._refresh()
            if node.served and not self._look(node, node.served).moves:
                return Assignment(node.served, (), False)
            again = self._look(node, choice.spans)
            if again.moves:
                choice, n_agreed = again, 0
                self._claim(node, choice.spans)
            else:
                n_agreed += 1
        return choice

    def _load(self, node: Node, spans: tuple[Span, ...]) -> Life:
        """Layer after layer, those that nobody serves now first; each serves from when it is here."""
        unserved = self._unserved(node)
        coming = [idx for span in subtract_spans(spans, node.served) for idx in span]
        for layer_idx in sorted(coming, key=lambda idx: (idx not in unserved, idx)):
            yield LAYER_BYTES / node.machine.download
            self._serve(node, merge_spans([*node.served, Span(layer_idx, layer_idx + 1)]))
            self._say(node)

    def _move(self, node: Node, target: tuple[Span, ...]) -> Life:
        for part in plan_move(node.served, target, node.machine.n_layers, self._unserved(node)):
            yield from self._load(node, merge_spans([*node.served, *part.load]))
            me = self._standing(node, node.served)
            view = self._take_view().as_seen_by(me)
            if not all(view.serving[idx] > 0 for span in part.leave for idx in span):
                break
            self._serve(node, subtract_spans(node.served, part.leave))
            self._say(node)
        self._claim(node, node.served)

    def _unserved(self, node: Node) -> frozenset[int]:
        """The layers that no other node serves, by what it knows."""
        serving = self._take_view().as_seen_by(self._standing(node, node.served)).serving
        return frozenset(np.flatnonzero(serving == 0).tolist())

    def _refresh(self) -> Life:
        self.counts.n_look_ups += 1
        yield self._draw.uniform(0.2, 1.0)

    # -- what it sees and says -----------------------------------------------------------------------------------

    def _look(self, node: Node, spans: tuple[Span, ...]) -> Assignment:
        me = self._standing(node, spans)
        return place(self._take_view().as_seen_by(me), node.budget, me, self.placement)

    def _standing(self, node: Node, spans: tuple[Span, ...]) -> Standing:
        return Standing(node.node_id, PROFILE, node.placed_at_s, spans, node.served)

    def _take_view(self) -> _View:
        if self._view is None or self.now_s - self._view.taken_s > self._view_age_s:
            self._view = _View(self.table.live(), self.now_s)
        return self._view

    def _claim(self, node: Node, spans: tuple[Span, ...]) -> None:
        node.claimed = spans
        self._say(node)

    def _say(self, node: Node) -> None:
        """State the node's fact; everybody knows it after a while."""
        node.seq += 1
        signed = SignedFact(self.fact(node), str(node.seq).encode(), b"")
        self._later(self._news_s * self._draw.uniform(0.5, 1.0), None, self._hear(signed))

    def _hear(self, signed: SignedFact) -> Life:
        self.table.add(signed)
        yield from ()

    def fact(self, node: Node) -> NodeFact:
        spans = merge_spans([*node.served, *node.claimed])
        return NodeFact(
            node_id=node.node_id,
            release=RELEASE,
            address=Address("192.0.2.1", 1),
            seq=node.seq,
            issued_at_s=self.now_s,
            ttl_s=self._fact_ttl_s,
            state=NodeState.SERVING if spans == node.served else NodeState.JOINING,
            spans=spans,
            profile=PROFILE,
            n_layers=ARGS.n_layers,
            free_sessions=8,
            layer_time_s=node.machine.layer_time_s,
            needed_bytes=sum(map(len, spans)) * LAYER_BYTES,
            fetched_bytes=sum(map(len, node.served)) * LAYER_BYTES,
            loaded_spans=() if spans == node.served else node.served,
            placed_at_s=node.placed_at_s,
            leaving_spans=subtract_spans(node.served, node.claimed),
            throughput=node.budget.throughput(sum(map(len, spans))),
        )

    # -- time ----------------------------------------------------------------------------------------------------

    def _later(self, delay_s: float, node: Node | None, life: Life) -> None:
        self._n_entries += 1
        heapq.heappush(self._agenda, (self.now_s + delay_s, self._n_entries, node, life))

    def _pass_to(self, at_s: float) -> None:
        passed_s = at_s - self.now_s
        self.counts.node_s += passed_s * len(self.nodes)
        if not self._n_hosts.all() and self.counts.first_covered_s < math.inf:
            self.counts.uncovered_s += passed_s
            if sum(node.machine.n_layers for node in self.nodes.values()) < ARGS.n_layers:
                self.counts.too_small_s += passed_s
        self.now_s = at_s

    def _serve(self, node: Node, spans: tuple[Span, ...]) -> None:
        for span in node.served:
            self._n_hosts[span.start : span.end] -= 1
        for span in spans:
            self._n_hosts[span.start : span.end] += 1
        node.served = spans
        if self._n_hosts.all():
            self.counts.first_covered_s = min(self.counts.first_covered_s, self.elapsed_s)
        self.counts.hosts.append((self.elapsed_s, int(self._n_hosts.min())))


class _View:
    """The facts in force at one moment, added up once for all who look at them: as one who comes after all of them
    takes them, and from that each looker's own is left out, and what is younger than its claim is taken as it must be.
    """

    def __init__(self, facts: tuple[NodeFact, ...], taken_s: float) -> None:
        self.taken_s = taken_s
        self._usual = median_speed(facts)
        self._facts = {fact.node_id: fact for fact in facts}
        pending = [fact for fact in facts if fact.state is not NodeState.SERVING]
        self._pending = sorted(pending, key=lambda fact: (fact.placed_at_s, fact.node_id))
        self._sum = self._add_up(facts, _LAST)

    def as_seen_by(self, me: Standing) -> Survey:
        own = self._facts.get(me.node_id)
        first = bisect.bisect_left(
            self._pending, (me.placed_at_s, me.node_id), key=lambda fact: (fact.placed_at_s, fact.node_id)
        )
        younger = [fact for fact in self._pending[first:] if fact is not own]
        less = self._add_up(younger if own is None else [*younger, own], _LAST)
        more = self._add_up(younger, me)
        return Survey(
            self._sum.hosts - less.hosts + more.hosts,
            self._sum.serving - less.serving + more.serving,
            np.maximum(self._sum.supply - less.supply + more.supply, 0.0),
            np.maximum(self._sum.work - less.work + more.work, 0.0),
        )

    def _add_up(self, facts: Sequence[NodeFact], me: Standing) -> Survey:
        return survey(facts, ARGS.n_layers, self.taken_s, me, self._usual)


def _node_id(number: int) -> NodeId:
    digits = "abcdefghijklmnopqrstuvwxyz234567"
    text = ""
    for _ in range(6):
        number, digit = divmod(number, 32)
        text = digits[digit] + text
    return NodeId(text.rjust(52, "a"))
