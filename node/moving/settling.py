"""What all who make a choice of their own have in common: whom they believe, and how a choice comes to stand."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from node.placement import PlacementConfig
from swarm.discovery import Discovery
from swarm.facts import NodeFact, NodeState
from swarm.routing import coverage
from swarm.terms import ExpertId, ExpertRange, Span, merge_experts, merge_spans, subtract_spans

Choice = TypeVar("Choice")

N_AGREED = 2
"""A claim is settled once so many looks in a row, each after a round of news, found nothing against it."""

MAX_LOOKS = 24


async def settle(
    choice: Choice,
    *,
    state: Callable[[Choice], None],
    look: Callable[[Choice], Choice | None],
    discovery: Discovery,
    config: PlacementConfig,
) -> Choice:
    """Claim, listen, and yield to older claims, until nothing speaks against it any more.

    state: tells the others of a choice. look: what to choose instead, None where the choice may stand.
    """
    n_agreed = n_looks = 0
    state(choice)
    while n_agreed < N_AGREED and n_looks < MAX_LOOKS:
        await asyncio.sleep(config.settle_s * random.uniform(0.5, 1.0))
        await listen(discovery)
        again = look(choice)
        n_agreed = n_agreed + 1 if again is None else 0
        n_looks += 1
        if again is not None:
            choice = again
            state(choice)
    return choice


async def listen(discovery: Discovery) -> None:
    """A round of news, and then a word with those whose word it takes."""
    await discovery.refresh()
    await meet_those_who_matter(discovery)


async def meet_those_who_matter(discovery: Discovery) -> None:
    """Ask those who were not met yet and claim something, or serve what nobody serves that was met."""
    met, others = _met(discovery), discovery.others()
    hearsay = [fact for fact in others if fact.node_id not in met]
    seen = _Seen.of(fact for fact in others if fact.node_id in met)
    await discovery.meet([f for f in hearsay if f.state is NodeState.JOINING or not seen.covers(f)])


def believed(discovery: Discovery) -> list[NodeFact]:
    """The facts in force. Of a node that is only talked about nothing that it claims, and what it says to serve only
    beside others: where nobody serves it that was met there may be nobody, and a few such facts would keep all
    newcomers away from a hole.
    """
    met, others = _met(discovery), discovery.others()
    seen = _Seen.of(fact for fact in others if fact.node_id in met)
    covered = {spans for spans in {fact.spans for fact in others} if seen.has_layers(spans)}  # many serve the same

    def is_usual(fact: NodeFact) -> bool:
        return fact.state is NodeState.SERVING and fact.spans in covered and not (fact.trunks or fact.experts)

    return [fact if fact.node_id in met or is_usual(fact) else seen.within(fact) for fact in others]


def unserved(discovery: Discovery, n_layers: int) -> frozenset[int]:
    """The layers that no other node serves now, by what is believed: what should be fetched before all others."""
    hosts = coverage(believed(discovery), n_layers, time.time())
    return frozenset(layer_idx for layer_idx, n_hosts in enumerate(hosts) if not n_hosts)


def _met(discovery: Discovery) -> set[str]:
    return {fact.node_id for fact in discovery.table.confirmed()}


@dataclass(frozen=True, slots=True)
class _Seen:
    """What those serve that were met: layers whole, trunks, and experts."""

    spans: tuple[Span, ...]
    trunks: tuple[Span, ...]
    experts: frozenset[ExpertId]

    @classmethod
    def of(cls, met: Iterable[NodeFact]) -> _Seen:
        spans: set[Span] = set()
        trunks: set[Span] = set()
        ranges: set[ExpertRange] = set()
        for fact in met:
            spans.update(fact.served_spans)
            trunks.update(fact.served_trunks)
            ranges.update(fact.served_experts)
        whole = merge_spans([*spans])
        experts = frozenset(expert for one in ranges for expert in one)
        return cls(whole, merge_spans([*whole, *trunks]), experts)

    def has_layers(self, spans: Iterable[Span]) -> bool:
        return all(any(seen.covers(span) for seen in self.spans) for span in spans)

    def covers(self, fact: NodeFact) -> bool:
        """Whether all of what it serves is served by somebody who was met: who serves a layer has its experts too."""
        alone = fact.experts if fact.state is NodeState.SERVING else fact.loaded_experts
        return (
            self.has_layers(fact.served_spans)
            and all(any(seen.covers(span) for seen in self.trunks) for span in fact.served_trunks)
            and (not alone or self.experts.issuperset(expert for one in alone for expert in one))
        )

    def within(self, fact: NodeFact) -> NodeFact:
        """The fact, as if it said no more than that."""
        if self.covers(fact):
            return fact if fact.state is not NodeState.JOINING else _without_claims(fact)
        spans, trunks = (
            subtract_spans(served, subtract_spans(served, seen))
            for served, seen in ((fact.served_spans, self.spans), (fact.served_trunks, self.trunks))
        )
        alone = fact.experts if fact.state is NodeState.SERVING else fact.loaded_experts
        experts = merge_experts(expert for one in alone for expert in one if expert in self.experts)
        return _without_claims(fact.changed(loaded_spans=spans, loaded_trunks=trunks, loaded_experts=experts))


def _without_claims(fact: NodeFact) -> NodeFact:
    return fact.changed(spans=fact.loaded_spans, trunks=fact.loaded_trunks, experts=fact.loaded_experts)
