"""Claims and moves among nodes that lie, fall silent or break: holes stay visible, and last copies stay put."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import torch

from node.model import Numerics, SpanModel
from node.moving import Claims, Mover, OnLoaded
from node.placement import Budget, PlacementConfig
from node.server import Statement
from node.stage import Stage, StageConfig
from node.weights import PRESETS
from swarm.discovery import Discovery, DiscoveryConfig, sign_fact
from swarm.discovery.ports import Answer
from swarm.errors import DeadlineExceeded
from swarm.facts import Known, NodeFact, NodeState, SignedFact
from swarm.identity import NodeKey
from swarm.terms import Address, Infohash, NodeId, Profile, Span

ARGS = PRESETS["tiny-mixtral"].args
RELEASE = Infohash("ab" * 20)
PROFILE = Profile("fp32")
CONFIG = PlacementConfig(interval_s=0.01, settle_s=0.0)


class Others:
    """Nodes that are talked about; of these, those in `answering` answer when asked."""

    def __init__(self) -> None:
        self.answering: dict[Address, NodeId] = {}
        self.n_made = 0

    async def exchange(
        self, address: Address, release: Infohash, facts: Sequence[SignedFact], known: Known, timeout_s: float
    ) -> Answer:
        if address not in self.answering:
            raise DeadlineExceeded(f"{address} is silent")
        return Answer(self.answering[address], [], False, 0.01)

    def add(self, discovery: Discovery, *spans: Span, answers: bool, **fields: Any) -> None:
        self.n_made += 1
        key, address = NodeKey.generate(), Address("198.51.100.1", self.n_made)
        known: dict[str, Any] = {"state": NodeState.SERVING, "placed_at_s": time.time() - 60.0, **fields}
        fact = NodeFact(
            node_id=key.node_id, release=RELEASE, address=address, seq=1, issued_at_s=time.time(), ttl_s=60.0,
            spans=spans, profile=PROFILE, n_layers=6, free_sessions=1, layer_time_s=0.01, **known,
        )  # fmt: skip
        discovery.table.add(sign_fact(key, fact))
        if answers:
            self.answering[address] = key.node_id


class Here:
    """One node among the others, that has room for two of six layers and serves some of them."""

    def __init__(self, *served: Span) -> None:
        key = NodeKey.generate()
        self.others = Others()
        self.said = Statement(key, RELEASE, Address("198.51.100.2", 1), 0, PROFILE, "1")
        self.said.n_layers = 6
        self.discovery = Discovery(
            RELEASE, self.others, DiscoveryConfig(), own=lambda: self.said.signed(60.0), announces=False
        )
        self.claims = Claims(key.node_id, self.discovery, self.said, Budget(2, 0.01), CONFIG)
        self.claims.state(served, time.time() - 30.0)

    @asynccontextmanager
    async def moving(self, load: Callable[..., Any]) -> AsyncIterator[asyncio.Task[None]]:
        models = {span: SpanModel(ARGS, span, Numerics(torch.float32)) for span in self.said.spans}
        stage = Stage(ARGS, models, StageConfig(), torch.device("cpu"))
        task = asyncio.create_task(Mover(self.claims, stage, load, lambda *_: None, 1.0).run())
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            stage.shut_down()


async def test_a_claim_counts_only_of_a_node_that_was_met() -> None:
    here = Here()
    here.others.add(here.discovery, Span(0, 2), answers=False, state=NodeState.JOINING)
    assert (await here.claims.choose())["spans"] == ["0:2"]
    here.others.add(here.discovery, Span(0, 2), answers=True, state=NodeState.JOINING)
    assert (await here.claims.choose())["spans"] == ["2:4"]


async def test_what_nobody_serves_that_was_met_is_a_hole_whatever_is_said() -> None:
    here = Here()
    here.others.add(here.discovery, Span(0, 6), answers=False)
    here.others.add(here.discovery, Span(0, 4), answers=True)
    assert (await here.claims.choose())["spans"] == ["4:6"]
    here.others.add(here.discovery, Span(3, 6), answers=True)
    chosen = await here.claims.choose()
    assert not any("no other node hosts" in reason for reason in chosen["reasons"])


async def test_hearsay_counts_beside_what_was_met() -> None:
    """Of those who were met the fewest serve 0:2; that more do is only said, and speaks for the other layers."""
    here = Here()
    here.others.add(here.discovery, Span(0, 2), answers=True)
    for _ in range(5):
        here.others.add(here.discovery, Span(2, 6), answers=True)
    assert (await here.claims.choose())["spans"] == ["0:2"]
    for _ in range(3):
        here.others.add(here.discovery, Span(0, 2), answers=False)
    assert Span.parse((await here.claims.choose())["spans"][0]).start >= 2


async def test_the_last_copy_is_left_only_to_a_node_that_answers() -> None:
    here = Here(Span(0, 2))
    here.others.add(here.discovery, Span(0, 6), answers=False)
    assert not await here.claims.may_leave((Span(0, 2),), (Span(0, 2),))
    here.others.add(here.discovery, Span(0, 1), answers=True)
    assert not await here.claims.may_leave((Span(0, 2),), (Span(0, 2),))
    here.others.add(here.discovery, Span(1, 3), answers=True)
    assert await here.claims.may_leave((Span(0, 2),), (Span(0, 2),))


async def test_a_move_that_breaks_leaves_no_claim_and_is_tried_again() -> None:
    here = Here(Span(0, 2))
    here.others.add(here.discovery, Span(0, 4), answers=True)
    stated: asyncio.Queue[tuple[Span, ...]] = asyncio.Queue()

    async def load(*_: object) -> Any:
        stated.put_nowait(here.said.spans)
        raise RuntimeError("whatever else may go wrong")

    async with asyncio.timeout(10), here.moving(load):
        assert [await stated.get() for _ in range(2)] == [(Span(0, 2), Span(4, 6))] * 2
        while here.said.spans != (Span(0, 2),):
            await asyncio.sleep(0)
        assert here.said.state is NodeState.SERVING and here.said.leaving == ()


@pytest.mark.parametrize("is_loading", [True, False])
async def test_a_move_that_is_broken_off_leaves_no_claim(is_loading: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Here(Span(0, 2))
    here.others.add(here.discovery, Span(0, 4), answers=True)
    reached, never = asyncio.Event(), asyncio.Event()

    async def stay(*_: object) -> Any:
        reached.set()
        await never.wait()

    if not is_loading:
        monkeypatch.setattr(here.discovery, "refresh", stay)
    async with asyncio.timeout(10), here.moving(stay) as task:
        await reached.wait()
        assert here.said.spans == (Span(0, 2), Span(4, 6))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert here.said.spans == (Span(0, 2),) and here.said.leaving == ()


async def test_a_move_loads_first_what_nobody_serves_and_serves_each_layer_as_soon_as_it_is_there() -> None:
    """The rest may take hours."""
    here = Here(Span(0, 2))
    here.claims.budget = Budget(4, 0.01)
    here.others.add(here.discovery, Span(0, 4), answers=True)
    never = asyncio.Event()
    stated: asyncio.Queue[tuple[NodeState, tuple[Span, ...]]] = asyncio.Queue()

    async def load(spans: tuple[Span, ...], keep: tuple[Span, ...], on_loaded: OnLoaded) -> None:
        models = [SpanModel(ARGS, span, Numerics(torch.float32)) for span in spans]
        assert spans == (Span(4, 6),)
        for there in ((), (Span(4, 5),)):
            on_loaded(there, models)
            stated.put_nowait((here.said.state, here.said.loaded))
        await never.wait()

    async with asyncio.timeout(10), here.moving(load) as task:
        assert await stated.get() == (NodeState.JOINING, (Span(0, 2),))
        assert await stated.get() == (NodeState.JOINING, (Span(0, 2), Span(4, 5)))
        assert here.said.spans == (Span(0, 6),), "it is to have 2:6, and 4:6 before that"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert (here.said.state, here.said.spans) == (NodeState.SERVING, (Span(0, 2), Span(4, 5))), "and kept"
