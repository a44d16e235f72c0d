"""What all who make a choice of their own have in common: whom they believe, and how a choice comes to stand."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Callable
from typing import TypeVar

from node.placement import PlacementConfig
from swarm.discovery import Discovery
from swarm.facts import NodeFact, NodeState

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
    """A round of news, and then a word with those who claim something and were not met yet."""
    await discovery.refresh()
    met = _met(discovery)
    await discovery.meet(
        [fact for fact in discovery.others() if fact.state is NodeState.JOINING and fact.node_id not in met]
    )


def believed(discovery: Discovery) -> list[NodeFact]:
    """The facts in force. Of a node that is only talked about what it says to serve, but nothing that it claims: else
    one such fact would keep all newcomers away from a hole.
    """
    met = _met(discovery)
    return [
        fact if fact.state is not NodeState.JOINING or fact.node_id in met else _without_claims(fact)
        for fact in discovery.others()
    ]


def _met(discovery: Discovery) -> set[str]:
    return {fact.node_id for fact in discovery.table.confirmed()}


def _without_claims(fact: NodeFact) -> NodeFact:
    return dataclasses.replace(fact, spans=fact.loaded_spans, trunks=fact.loaded_trunks, experts=fact.loaded_experts)
