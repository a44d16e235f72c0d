"""The session protocol against a model of it: whatever the order of steps, truncations, epochs, losses and replays, the
answer to a step is that of a stage which is fed all ids at once, bit for bit, and nothing of a session stays behind.

Real stages and handlers of a small exact model; between them lie queues in place of gRPC, so that streams break where
the test says. A client that keeps the protocol's rules is the machine itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from node.hosting import load_part
from node.model import Numerics, SpanModel
from node.server import SessionHandler
from node.stage import Stage, StageConfig, StageSession
from swarm.errors import NodeUnreachable, SessionLost, SwarmError
from swarm.facts import Hop
from swarm.messages import Failure, Open, Opened, Step, TopLogits
from swarm.release import read_folder_layout
from swarm.terms import Address, Infohash, NodeId, Profile, SessionId, Span

SPANS = (Span(0, 2), Span(2, 4), Span(4, 6))
N_EACH = 2
MAX_POSITIONS = 48
RELEASE, SESSION, CLIENT = Infohash("ab" * 20), SessionId("cd" * 16), NodeId("c" * 52)
DEADLINE_S = 30.0
T = TypeVar("T")
Answer = Callable[[tuple[int, ...]], Awaitable[TopLogits]]

token_ids = st.integers(min_value=0, max_value=299)
some_ids = st.lists(token_ids, min_size=1, max_size=5)
choices = st.tuples(*[st.integers(min_value=0, max_value=N_EACH - 1)] * len(SPANS))


class Link:
    """One Run stream, in place of swarm.rpc's RunCall."""

    def __init__(self, handler: SessionHandler, opening: Open, caller: NodeId) -> None:
        self.opening = opening
        self._steps: asyncio.Queue[Step | SwarmError | None] = asyncio.Queue()
        self._replies: asyncio.Queue[Opened | Failure | SwarmError | None] = asyncio.Queue()
        self.serving = asyncio.create_task(self._serve(handler, caller))

    async def send(self, step: Step) -> None:
        if self.serving.done():
            raise SessionLost("the other side ended the stream")
        self._steps.put_nowait(step)

    async def replies(self) -> AsyncIterator[Opened | Failure]:
        while (reply := await self._replies.get()) is not None:
            if isinstance(reply, SwarmError):
                raise reply
            yield reply

    async def leave(self) -> None:
        self._steps.put_nowait(None)

    def cancel(self) -> None:
        self.serving.cancel()

    def snap(self) -> None:
        """Both sides see it broken."""
        error = NodeUnreachable("the connection broke")
        self._steps.put_nowait(error)
        self._replies.put_nowait(error)

    async def _serve(self, handler: SessionHandler, caller: NodeId) -> None:
        last: SwarmError | None = None
        try:
            async with contextlib.aclosing(handler.run(self.opening, self._incoming(), caller)) as replies:  # type: ignore[type-var]
                async for reply in replies:
                    self._replies.put_nowait(reply)
        except SwarmError as error:
            last = error
        except asyncio.CancelledError:
            last = NodeUnreachable("the stage is gone")
        self._replies.put_nowait(last)

    async def _incoming(self) -> AsyncIterator[Step]:
        while (step := await self._steps.get()) is not None:
            if isinstance(step, SwarmError):
                raise step
            yield step


class Remembering(Stage):
    """A stage whose orphans can be made to expire when the test wants it."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.abandoned: list[tuple[StageSession, int]] = []

    def abandon(self, session: StageSession, epoch: int) -> bool:
        kept = super().abandon(session, epoch)
        if kept:
            self.abandoned.append((session, epoch))
        return kept


class Node:
    """A stage, its handler, and the streams into it and out of it. It stands in for its own Dialer."""

    def __init__(self, world: dict[Address, Node], model: SpanModel, profile: Profile, nth: int) -> None:
        self.node_id = NodeId("abdefghij"[nth] * 52)
        self.address = Address("127.0.0.1", 7000 + nth)
        self.links: list[Link] = []
        self._world, self._model, self._profile = world, model, profile
        self._world[self.address] = self
        self.start()

    def start(self) -> None:
        config = StageConfig(cache_budget_bytes=64 << 20)
        self.stage = Remembering(self._model.args, {self._model.span: self._model}, config, torch.device("cpu"))
        dialer: Any = self
        self.handler = SessionHandler(self.node_id, RELEASE, self._profile, self.stage, dialer, orphan_s=1e6)

    async def connect(self, address: Address, node_id: NodeId) -> Any:
        node, caller = self._world[address], self
        assert node.node_id == node_id

        class Connection:
            def run(self, opening: Open) -> Link:
                link = node.enter(opening, caller.node_id)
                caller.links.append(link)
                return link

        return Connection()

    def enter(self, opening: Open, caller: NodeId) -> Link:
        self.links.append(Link(self.handler, opening, caller))
        return self.links[-1]

    async def restart(self) -> None:
        """As a process that was killed: its streams break, and it comes back with nothing."""
        for link in self.links:
            link.snap()
            link.cancel()
        await asyncio.gather(*(link.serving for link in self.links))
        self.links = []
        self.stage.shut_down()
        self.start()

    def expire(self) -> None:
        """No later epoch came in time."""
        for orphan, epoch in self.stage.abandoned:
            self.stage.close_epoch(orphan, epoch)
        self.stage.abandoned.clear()


class Protocol(RuleBasedStateMachine):
    """The client: `ids` is its journal, `agreed` how far all that was ever fed is what it would feed now."""

    def __init__(
        self, model: SpanModel, profile: Profile, answer: Callable[[tuple[int, ...]], Awaitable[TopLogits]]
    ) -> None:
        super().__init__()
        self._loop = asyncio.new_event_loop()
        self._profile, self._answer = profile, answer
        self._world: dict[Address, Node] = {}
        self._nodes = self._run(self._start(model))
        self._ids: list[int] = []
        self._agreed = MAX_POSITIONS
        self._epoch = 0
        self._link: Link | None = None
        self._results: Any = None
        self._zombies: list[Link] = []
        self._newest: dict[Address, int] = {}

    async def _start(self, model: SpanModel) -> list[list[Node]]:
        numbers = iter(range(len(SPANS) * N_EACH))
        return [[Node(self._world, model, self._profile, next(numbers)) for _ in range(N_EACH)] for _ in SPANS]

    # -- what a client does --------------------------------------------------------------------------------------

    @initialize(ids=st.lists(token_ids, min_size=2, max_size=12), route=choices)
    def begin(self, ids: list[int], route: tuple[int, ...]) -> None:
        self._ids = ids
        self._run(self._open(route))

    @rule(route=choices, end=st.sampled_from(["snap", "cancel", "zombie", "leave"]))
    def take_another_route(self, route: tuple[int, ...], end: str) -> None:
        self._run(self._end(end))
        self._run(self._open(route))

    @precondition(lambda self: self._link is not None and len(self._ids) < MAX_POSITIONS - 5)
    @rule(ids=some_ids)
    def step(self, ids: list[int]) -> None:
        position = len(self._ids)
        self._ids += ids
        self._run(self._feed(position))

    @precondition(lambda self: self._link is not None)
    @rule(ids=some_ids, back=st.integers(min_value=1, max_value=8))
    def take_back(self, ids: list[int], back: int) -> None:
        position = max(0, len(self._ids) - back)
        self._ids[position:] = ids
        self._agreed = min(self._agreed, position)
        self._run(self._feed(position))

    @precondition(lambda self: self._link is not None)
    @rule(route=choices, ids=some_ids, back=st.integers(min_value=1, max_value=8))
    def take_back_elsewhere_and_return(self, route: tuple[int, ...], ids: list[int], back: int) -> None:
        """What the first route cached is of use only up to where the second took back."""
        assert self._link is not None
        on_route = [hop.node_id for hop in self._link.opening.hops]
        came_from = tuple(int(nodes[1].node_id in on_route) for nodes in self._nodes)
        self.take_another_route(route, "cancel")
        self.take_back(ids, back)
        self.take_another_route(came_from, "cancel")

    @precondition(lambda self: self._link is not None)
    @rule(wrong=st.sampled_from(["epoch", "position", "id"]))
    def make_a_mistake(self, wrong: str) -> None:
        """The route says so, names the first hop, and ends; what the others cached stays of use."""
        epoch = self._epoch - (wrong == "epoch")
        position = len(self._ids) + (wrong == "position")
        self._run(self._be_refused(Step(epoch, position, (1 << 20 if wrong == "id" else 1,), 1), wrong))

    @precondition(lambda self: self._zombies)
    @rule(n_back=st.integers(min_value=0, max_value=3))
    def wake_a_zombie(self, n_back: int) -> None:
        """A stream of an earlier epoch goes on where it stopped, or before that. Nobody reads its answers.

        Its first hop refuses that if a later epoch led over it; else it was fed what the client would not feed now.
        """
        zombie = self._zombies[-1]
        step = Step(zombie.opening.epoch, max(0, len(self._ids) - 1 - n_back), (7,), 1)
        if self._newest[zombie.opening.hops[0].address] == zombie.opening.epoch:
            self._agreed = min(self._agreed, step.position)
        with contextlib.suppress(SwarmError):
            self._run(zombie.send(step))

    # -- what befalls the nodes ----------------------------------------------------------------------------------

    @rule(
        hop_idx=st.integers(min_value=0, max_value=len(SPANS) - 1), nth=st.integers(min_value=0, max_value=N_EACH - 1)
    )
    def lose_a_node(self, hop_idx: int, nth: int) -> None:
        node = self._nodes[hop_idx][nth]
        on_route = self._link is not None and node.node_id in [hop.node_id for hop in self._link.opening.hops]
        self._run(node.restart())
        if on_route:
            self._run(self._end("cancel"))

    @rule(
        hop_idx=st.integers(min_value=0, max_value=len(SPANS) - 1), nth=st.integers(min_value=0, max_value=N_EACH - 1)
    )
    def let_orphans_expire(self, hop_idx: int, nth: int) -> None:
        self._run(self._settle())
        self._nodes[hop_idx][nth].expire()

    # -- what always holds ---------------------------------------------------------------------------------------

    @invariant()
    def books_balance(self) -> None:
        for node in self._world.values():
            assert node.stage.n_sessions >= 0
            assert node.stage.n_sessions + node.stage.n_orphans <= 1, "one client, one session, one span"

    def teardown(self) -> None:
        self._run(self._end("leave"))
        self._run(self._close())
        self._loop.close()

    async def _close(self) -> None:
        for zombie in self._zombies:
            zombie.snap()
        for node in self._world.values():
            await asyncio.gather(*(link.serving for link in node.links))
        for node in self._world.values():
            node.expire()
            assert (node.stage.n_sessions, node.stage.n_orphans) == (0, 0)
            node.stage.shut_down()

    # -- a route -------------------------------------------------------------------------------------------------

    async def _open(self, route: tuple[int, ...]) -> None:
        nodes = [self._nodes[hop_idx][nth] for hop_idx, nth in enumerate(route)]
        hops = tuple(Hop(node.node_id, node.address, span) for node, span in zip(nodes, SPANS, strict=True))
        fed = min(len(self._ids) - 1, self._agreed) if self._epoch else 0
        self._epoch += 1
        self._newest |= {node.address: self._epoch for node in nodes}
        opening = Open(SESSION, self._epoch, RELEASE, CLIENT, hops, 0, self._profile, MAX_POSITIONS, 4, (), fed)
        self._link = nodes[0].enter(opening, CLIENT)
        opened = await anext(self._link.replies())
        assert isinstance(opened, Opened), opened
        assert 0 <= opened.cached <= fed
        self._results = nodes[-1].handler.results(SESSION, self._epoch, CLIENT)
        await self._feed(opened.cached)

    async def _feed(self, position: int) -> None:
        """Feed the ids from position on in two steps, if they are so many, and hold the answer against the model."""
        assert self._link is not None
        middle = (position + len(self._ids)) // 2
        if position < middle:
            await self._link.send(Step(self._epoch, position, tuple(self._ids[position:middle]), 0))
        await self._link.send(Step(self._epoch, middle, tuple(self._ids[middle:]), 1))
        while True:
            result = await anext(self._results)
            assert result.epoch == self._epoch
            if result.rows:
                break
        assert result.position == len(self._ids)
        assert result.rows == (await self._answer(tuple(self._ids)),)

    async def _be_refused(self, step: Step, wrong: str) -> None:
        assert self._link is not None
        await self._link.send(step)
        failure = await anext(self._link.replies())
        assert isinstance(failure, Failure)
        codes = {"epoch": "StaleEpoch", "position": "PositionMismatch", "id": "RemoteProtocolError"}
        assert (failure.hop_idx, failure.code) == (0, codes[wrong])
        await self._end("cancel")

    async def _end(self, how: str) -> None:
        link, self._link = self._link, None
        if self._results is not None:
            await self._results.aclose()
            self._results = None
        if link is None:
            return
        if how == "zombie":
            self._zombies.append(link)
            return
        if how == "leave":
            await link.leave()
            await link.serving
            on_route = [self._world[hop.address] for hop in link.opening.hops]
            await self._settle()
            assert not any(node.stage.n_sessions or node.stage.n_orphans for node in on_route)
            return
        link.snap() if how == "snap" else link.cancel()

    async def _settle(self) -> None:
        """Until no stream is about to end."""
        live = {id(self._link), *map(id, self._zombies)}
        while any(
            not link.serving.done() and link.opening.hop_idx == 0 and id(link) not in live
            for node in self._world.values()
            for link in node.links
        ):
            await asyncio.sleep(0)

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        async def in_time() -> T:
            async with asyncio.timeout(DEADLINE_S):
                return await coroutine

        return self._loop.run_until_complete(in_time())


@pytest.fixture(scope="module")
def model(request: pytest.FixtureRequest) -> SpanModel:
    folder: Path = request.getfixturevalue("release")("tiny-mixtral")
    layout = read_folder_layout(folder)
    whole = Span(0, layout.args.n_layers)
    model = SpanModel(layout.args, whole, Numerics(is_exact=True), device="cpu")
    for part in ("embeddings", *whole, "head"):
        load_part(part, layout, {whole: model}, folder)
    return model


@pytest.mark.parametrize("profile", ["bf16-exact-test-abcdef", "bf16"], ids=["large chunks", "the very steps"])
def test_any_order_of_events_leaves_the_answers_as_they_are(model: SpanModel, profile: str) -> None:
    """The model computes exactly under either name; the second has rows fed on in the very steps that made them."""
    stage = Stage(model.args, {model.span: model}, StageConfig(), torch.device("cpu"))
    known: dict[tuple[int, ...], TopLogits] = {}

    async def answer(ids: tuple[int, ...]) -> TopLogits:
        if ids in known:
            return known[ids]
        session = stage.open((CLIENT, SESSION, 0), 1, model.span, MAX_POSITIONS, 4)
        output = await stage.step(session, Step(1, 0, ids, 1))
        stage.close(session)
        assert isinstance(output.payload, tuple)
        known[ids] = output.payload[0]
        return known[ids]

    try:
        run_state_machine_as_test(
            lambda: Protocol(model, Profile.parse(profile), answer),
            settings=settings(
                max_examples=25,
                stateful_step_count=25,
                derandomize=True,
                phases=[Phase.generate],  # a failure is shown as it was found: to shrink it would take minutes
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        stage.shut_down()
