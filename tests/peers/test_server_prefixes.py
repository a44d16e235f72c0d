"""Pages agreed upon down a route of real handlers over real gRPC; the stages below them only tell what they hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from node.server import SessionHandler
from node.server.scope import prefix_scope
from node.stage import Prefix, StepOutput
from swarm.facts import Hop
from swarm.identity import NodeKey
from swarm.messages import Failure, Open, Opened, Rows, Step
from swarm.pages import PAGE
from swarm.rpc import Dialer
from swarm.terms import Address, Infohash, Profile, SessionId, Span

RELEASE, FP32 = Infohash("ab" * 20), Profile("fp32")
N_LAYERS = 6
HASHES = tuple(bytes([n]) * 16 for n in range(1, 5))


@dataclass
class HeldPages:
    """In place of a stage: one that holds the first n_pages pages of whatever it is asked for, and their rows."""

    n_pages: int
    args: Any = field(default_factory=lambda: SimpleNamespace(n_layers=N_LAYERS))
    asked: list[Prefix] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    n_open: int = 0
    newest: Any = None

    def open(
        self, key: object, epoch: int, span: Span, max_positions: int, n_top: int, prefix: Prefix, *_: int
    ) -> SimpleNamespace:
        self.asked.append(prefix)
        self.n_open += 1
        found = PAGE * min(self.n_pages, len(prefix.page_hashes))
        told = {"scope": prefix.scope, "epoch": epoch, "is_open": True, "on_evicted": lambda epoch, tell: None}
        self.newest = SimpleNamespace(span=span, cached_positions=found, **told)
        return self.newest

    def kept(
        self, session: SimpleNamespace, epoch: int, start: int, end: int, *, in_same_steps: bool
    ) -> Iterator[Step]:
        assert not in_same_steps
        for position in range(start, end, PAGE):
            rows = Rows(PAGE, "fp32", bytes(4 * PAGE))
            yield Step(epoch, position, rows, 0, page_hashes=HASHES[position // PAGE :][:1])

    async def step(self, session: SimpleNamespace, step: Step) -> StepOutput:
        self.steps.append(step)
        payload: Any = () if session.span.end == N_LAYERS else Rows(step.n_rows, "fp32", bytes(4 * step.n_rows))
        return StepOutput(payload, step.position + step.n_rows, 0.0, 0.0)

    def close_epoch(self, session: SimpleNamespace, epoch: int) -> None:
        self.n_open -= session.is_open
        session.is_open = False

    def abandon(self, session: SimpleNamespace, epoch: int) -> bool:
        self.close_epoch(session, epoch)
        return False


@dataclass
class Line:
    """A client and a route of equal spans, one node each."""

    dialer: Dialer
    opening: Open
    stages: list[HeldPages]

    async def open(self, **changes: Any) -> Opened | Failure:
        async with asyncio.timeout(20):
            first = self.opening.hops[0]
            async with (await self.dialer.connect(first.address, first.node_id)).run(
                replace(self.opening, **changes)
            ) as call:
                return await anext(call.replies())

    async def closed(self) -> None:
        """All stages have let go of their sessions."""
        async with asyncio.timeout(20):
            while any(stage.n_open for stage in self.stages):
                await asyncio.sleep(0.01)


async def line_of(world: Any, n_pages: Sequence[int], client: NodeKey, keys: Sequence[NodeKey] = ()) -> Line:
    """A route whose n-th stage holds n_pages[n]; its nodes' keys, where they matter."""
    stages = [HeldPages(n) for n in n_pages]
    width = N_LAYERS // len(stages)
    hops = []
    for n, stage in enumerate(stages):
        key = keys[n] if keys else NodeKey.generate()
        handler: Any = SessionHandler(key.node_id, RELEASE, FP32, stage, world.dialer(key))  # type: ignore[arg-type]
        _, address = await world.serve(key=key, stage=handler)
        hops.append(Hop(key.node_id, address, Span(n * width, (n + 1) * width)))
    opening = Open(SessionId("cd" * 16), 1, RELEASE, client.node_id, tuple(hops), 0, FP32, 2000, 1, HASHES)
    return Line(world.dialer(client), opening, stages)


@pytest.mark.parametrize("n_pages", [(4, 4, 4), (3, 2, 9), (9, 9, 1), (3, 0, 3), (0, 3, 3), (2, 3, 0), (0, 1, 2), (2,)])
async def test_every_hop_begins_with_what_it_has_and_is_sent_what_it_lacks_once(
    world: Any, n_pages: tuple[int, ...]
) -> None:
    line = await line_of(world, n_pages, NodeKey.generate())
    has = [PAGE * min(n, 4) for n in n_pages]
    first = line.opening.hops[0]
    connection = await line.dialer.connect(first.address, first.node_id)
    async with asyncio.timeout(20), connection.run(line.opening) as call:
        replies = call.replies()
        assert await anext(replies) == Opened(1, has[0], has[-1])
        for position in range(has[0], 4 * PAGE, 2 * PAGE):
            n = min(2 * PAGE, 4 * PAGE - position)
            await call.send(Step(1, position, (1,) * n, 0, (), b"", HASHES[position // PAGE :][: n // PAGE]))
        await call.send(Step(1, 4 * PAGE, (1,) * 7, 1))
        await call.leave()
        assert [reply async for reply in replies] == []
    for stage, begins_at in zip(line.stages, has, strict=True):
        assert [prefix.page_hashes for prefix in stage.asked] == [HASHES]
        position, named = begins_at, []
        for step in stage.steps:
            assert step.position == position
            position += step.n_rows
            named.extend(step.page_hashes)
        assert position == 4 * PAGE + 7
        assert tuple(named) == HASHES[begins_at // PAGE :]
        assert stage.steps[-1].n_logit_rows == 1
    await line.closed()


async def test_the_hashes_of_a_step_reach_every_hop(world: Any) -> None:
    line = await line_of(world, (1, 1, 1), NodeKey.generate())
    first = line.opening.hops[0]
    steps = [Step(1, 256, (1,) * 300, 0, (), b"", HASHES[1:2]), Step(1, 556, (1,) * 3, 0)]
    async with (
        asyncio.timeout(20),
        (await line.dialer.connect(first.address, first.node_id)).run(line.opening) as call,
    ):
        replies = call.replies()
        assert await anext(replies) == Opened(1, 256, 256)
        for step in steps:
            await call.send(step)
        await call.leave()
        assert [reply async for reply in replies] == []
    for stage in line.stages:
        assert [(step.position, step.n_rows, step.page_hashes) for step in stage.steps] == [
            (256, 300, HASHES[1:2]),
            (556, 3, ()),
        ]


async def test_a_next_hop_that_claims_more_than_it_was_offered_is_at_fault(world: Any) -> None:
    async def boastful(opening: Open, steps: AsyncIterator[Step], caller: object) -> AsyncIterator[Opened | Failure]:
        yield Opened(opening.epoch, 3 * PAGE)
        async for _ in steps:
            pass

    line = await line_of(world, (2,), NodeKey.generate())
    key = NodeKey.generate()
    _, address = await world.serve(key=key, stage=world.stage(running=boastful))
    hops = (replace(line.opening.hops[0], span=Span(0, 3)), Hop(key.node_id, address, Span(3, N_LAYERS)))
    failure = await line.open(hops=hops, page_hashes=HASHES[:2])
    assert isinstance(failure, Failure)
    assert (failure.hop_idx, failure.node_id, failure.code) == (1, key.node_id, "RemoteProtocolError")
    assert "768 positions came cached, and 512 were offered" in failure.message
    await line.closed()


async def test_a_stream_that_a_later_epoch_overtakes_feeds_what_its_own_epoch_began_with(world: Any) -> None:
    opened, answer = asyncio.Event(), asyncio.Event()
    fed: list[tuple[int, int]] = []

    async def slow(opening: Open, steps: AsyncIterator[Step], caller: object) -> AsyncIterator[Opened | Failure]:
        opened.set()
        await answer.wait()
        yield Opened(opening.epoch, 0)
        async for step in steps:
            fed.append((step.epoch, step.position))

    line = await line_of(world, (2,), NodeKey.generate())
    key = NodeKey.generate()
    _, address = await world.serve(key=key, stage=world.stage(running=slow))
    hops = (replace(line.opening.hops[0], span=Span(0, 3)), Hop(key.node_id, address, Span(3, N_LAYERS)))
    connection = await line.dialer.connect(hops[0].address, hops[0].node_id)
    async with asyncio.timeout(20), connection.run(replace(line.opening, hops=hops, page_hashes=HASHES[:2])) as call:
        replies = call.replies()
        reply = asyncio.ensure_future(anext(replies))
        await opened.wait()
        line.stages[0].newest.epoch, line.stages[0].newest.cached_positions = 2, 4 * PAGE
        answer.set()
        assert await reply == Opened(1, 2 * PAGE, 0)
        await call.leave()
        assert [reply async for reply in replies] == []
    assert fed == [(1, 0), (1, PAGE)]


async def test_a_stream_takes_no_steps_of_another_epoch(world: Any) -> None:
    line = await line_of(world, (0,), NodeKey.generate())
    first = line.opening.hops[0]
    connection = await line.dialer.connect(first.address, first.node_id)
    async with asyncio.timeout(20), connection.run(line.opening) as call:
        replies = call.replies()
        assert isinstance(await anext(replies), Opened)
        await call.send(Step(2, 0, (1,), 1))
        failure = await anext(replies)
    assert isinstance(failure, Failure)
    assert (failure.hop_idx, failure.code) == (0, "StaleEpoch")
    assert line.stages[0].steps == []
    await line.closed()


async def test_scopes_are_equal_only_for_one_client_on_one_route(world: Any) -> None:
    client, keys = NodeKey.generate(), [NodeKey.generate() for _ in range(3)]
    first = await line_of(world, (1, 1, 1), client, keys)
    await first.open()
    await first.open(session_id=SessionId("ef" * 16), epoch=5, max_positions=900, page_hashes=())
    scopes = []
    for stage in first.stages:
        one, other = [prefix.scope for prefix in stage.asked]
        assert one == other
        scopes.append(one)
    assert len(set(scopes)) == 3

    stranger = await line_of(world, (1, 1, 1), NodeKey.generate(), keys)
    await stranger.open()
    assert not {stage.asked[0].scope for stage in stranger.stages} & set(scopes)

    other_middle = await line_of(world, (1, 1, 1), client, [keys[0], NodeKey.generate(), keys[2]])
    await other_middle.open()
    same = [stage.asked[0].scope == scope for stage, scope in zip(other_middle.stages, scopes, strict=True)]
    assert same == [True, True, False], "a hop's pages come from those before it, whatever node it is itself"


async def test_another_split_of_the_layers_is_another_scope(world: Any) -> None:
    client, keys = NodeKey.generate(), [NodeKey.generate() for _ in range(2)]
    line = await line_of(world, (1, 1), client, keys)
    await line.open()
    a, b = line.opening.hops
    await line.open(session_id=SessionId("ef" * 16), hops=(replace(a, span=Span(0, 2)), replace(b, span=Span(2, 6))))
    for stage in line.stages:
        one, other = [prefix.scope for prefix in stage.asked]
        assert one != other


def test_another_profile_is_another_scope() -> None:
    """A node that is on the route may have been restarted with another since."""
    hops = tuple(Hop(NodeKey.generate().node_id, Address("::1", 7), span) for span in (Span(0, 3), Span(3, 6)))
    one = Open(SessionId("cd" * 16), 1, RELEASE, NodeKey.generate().node_id, hops, 1, FP32, 2000, 1)
    assert prefix_scope(one) == prefix_scope(replace(one, session_id=SessionId("ef" * 16), epoch=2, n_top=9))
    assert prefix_scope(one) != prefix_scope(replace(one, profile=Profile("bf16")))
