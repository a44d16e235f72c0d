"""A dispatcher and hosts of experts over real gRPC: who is asked, who is asked instead, and what comes of nobody."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from node.experts import Directory, Dispatcher, ExpertHost, ExpertHostConfig
from node.model import Answers, ExpertStore, Numerics
from node.server import ExpertsHandler
from node.server.experts import Put
from node.weights import PRESETS
from node.weights.synthetic import random_tensors
from swarm.errors import ExpertUnavailable, RemoteProtocolError
from swarm.facts import NodeFact, NodeState
from swarm.identity import NodeKey, issue
from swarm.messages import ExpertAnswer, ExpertCall, ExpertOpen, ExpertRefusal, Rows
from swarm.rpc import Dialer, RpcConfig, RpcServer
from swarm.terms import Address, ExpertId, Infohash, NodeId, Profile, merge_experts

ARGS = PRESETS["tiny-mixtral"].args
RELEASE = Infohash("ab" * 20)
PROFILE = Profile.parse("bf16-exact-amx-123abc")
CALLER = NodeId("c" * 52)
OPENING = ExpertOpen(RELEASE, PROFILE)
X = torch.randn(5, ARGS.dim, generator=torch.Generator().manual_seed(1)).bfloat16()


def store_of(*experts: ExpertId) -> ExpertStore:
    store = ExpertStore(ARGS, Numerics(is_exact=True))
    tensors = dict(random_tensors(ARGS, 3))
    for expert in experts:
        store.load(expert, tensors, f"layers.{expert.layer_idx}.feed_forward.experts.{expert.expert_idx}.")
    return store


EVERY = store_of(*(ExpertId(1, expert_idx) for expert_idx in range(ARGS.n_experts)))


class SlowHandler(ExpertsHandler):
    """pause_s: before each answer. lies: answers too few rows. n_streams: open ones."""

    pause_s = 0.0
    lies = False
    n_streams = 0

    async def apply(
        self, opening: ExpertOpen, calls: AsyncIterator[ExpertCall], caller: NodeId
    ) -> AsyncIterator[ExpertAnswer | ExpertRefusal]:
        self.n_streams += 1
        try:
            async for reply in super().apply(opening, calls, caller):
                yield reply
        finally:
            self.n_streams -= 1

    def _begin(self, call: ExpertCall, caller: NodeId, put: Put) -> Callable[[], None] | None:
        def lie(reply: ExpertAnswer | ExpertRefusal) -> None:
            if self.lies and isinstance(reply, ExpertAnswer):
                reply = replace(reply, rows=Rows(1, "bf16", bytes(2 * ARGS.dim)))
            put(reply)

        ends: list[Callable[[], None] | None] = []
        begin = super()._begin
        later = asyncio.get_running_loop().call_later(self.pause_s, lambda: ends.append(begin(call, caller, lie)))

        def end() -> None:
            later.cancel()
            for inner in filter(None, ends):
                inner()

        return end


@dataclass
class RunningHost:
    node_id: NodeId
    fact: NodeFact
    handler: SlowHandler
    server: RpcServer


class World:
    """Hosts, what is said of them, and one who asks."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.facts: list[NodeFact] = []
        self._stack = stack

    async def host(self, *expert_idxs: int, **config: int) -> RunningHost:
        """Of these experts of layer 1."""
        tls = issue(NodeKey.generate())
        experts = [ExpertId(1, expert_idx) for expert_idx in expert_idxs]
        host = ExpertHost(store_of(*experts), ExpertHostConfig(**config))
        self._stack.callback(host.close)
        handler = SlowHandler(tls.node_id, RELEASE, PROFILE, host)
        server = RpcServer(tls, RpcConfig.loopback(), experts=handler)
        address = await server.start(Address("127.0.0.1", 0))
        self._stack.push_async_callback(server.stop)
        fact = NodeFact(
            tls.node_id, RELEASE, address, 1, time.time(), 600.0, NodeState.SERVING, (), PROFILE, ARGS.n_layers,
            experts=merge_experts(experts), n_experts=ARGS.n_experts,
        )  # fmt: skip
        self.facts.append(fact)
        return RunningHost(tls.node_id, fact, handler, server)

    async def dispatcher(self) -> Dispatcher:
        dialer = await self._stack.enter_async_context(Dialer(issue(NodeKey.generate()), RpcConfig.loopback()))
        directory = Directory(lambda: self.facts, NodeId(""), PROFILE, (ARGS.n_layers, ARGS.n_experts))
        dispatcher = Dispatcher(directory, dialer, OPENING)
        self._stack.push_async_callback(dispatcher.close)
        return dispatcher


@pytest.fixture
async def experts_world() -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        yield World(stack)


async def ask(dispatcher: Dispatcher, wanted: Mapping[int, Sequence[int]], x: Tensor = X) -> Answers:
    answers = await asyncio.wrap_future(dispatcher.apply(1, x, wanted))
    experts = EVERY.of_layer(1)
    with torch.inference_mode():
        for expert_idx, row_idxs in wanted.items():
            assert torch.equal(answers[expert_idx], experts[expert_idx](x[list(row_idxs)]))
    return answers


async def test_each_host_gets_one_message_with_the_rows_of_its_experts(experts_world: World) -> None:
    a, b = await experts_world.host(0, 1, 2), await experts_world.host(3, 4)
    dispatcher = await experts_world.dispatcher()
    await ask(dispatcher, {0: [0, 2], 1: [1], 2: [4], 3: [0, 1, 2, 3], 4: [3]})
    assert dispatcher.asked == {a.node_id: 1, b.node_id: 1}
    assert dispatcher.wait_s > 0


async def test_a_call_is_answered_whatever_becomes_of_looking_after_the_links(
    experts_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compute thread waits for the answer without an end."""
    await experts_world.host(0)
    await experts_world.host(1)
    dispatcher = await experts_world.dispatcher()
    await ask(dispatcher, {0: [0], 1: [0]})

    def broken(directory: Directory, host: object) -> bool:
        raise RuntimeError("a bug in the directory")

    monkeypatch.setattr("node.experts.dispatcher.SWEEP_S", 0.0)
    monkeypatch.setattr(Directory, "names", broken)
    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(str(context["exception"])))
    async with asyncio.timeout(10):
        await ask(dispatcher, {0: [1]})
    assert told[0] == "a bug in the directory"


async def test_calls_side_by_side_each_get_their_own_answers(experts_world: World) -> None:
    await experts_world.host(*range(8))
    dispatcher = await experts_world.dispatcher()
    rows = torch.randn(40, 64, ARGS.dim, generator=torch.Generator().manual_seed(2)).bfloat16()
    await asyncio.gather(*(ask(dispatcher, {i % 8: [0], (i + 3) % 8: list(range(60))}, x) for i, x in enumerate(rows)))


async def test_a_lost_host_is_replaced_within_the_call(experts_world: World) -> None:
    first, second = await experts_world.host(0), await experts_world.host(0)
    dispatcher = await experts_world.dispatcher()
    for _ in range(3):
        await ask(dispatcher, {0: [0]})
    first.handler.pause_s = second.handler.pause_s = 0.2
    asking = asyncio.create_task(ask(dispatcher, {0: [0]}))
    before = dict(dispatcher.asked)
    async with asyncio.timeout(10):
        while dispatcher.asked == before:
            await asyncio.sleep(0.001)
    lost = next(host for host in (first, second) if dispatcher.asked[host.node_id] > before.get(host.node_id, 0))
    await lost.server.stop()
    started_s = time.monotonic()
    await asking
    assert time.monotonic() - started_s < 1.0


async def test_a_late_host_is_hedged(experts_world: World) -> None:
    first, second = await experts_world.host(0), await experts_world.host(0)
    dispatcher = await experts_world.dispatcher()
    for _ in range(60):
        await ask(dispatcher, {0: [0]})
    first.handler.pause_s = 5.0
    second.handler.pause_s = 5.0
    asking = asyncio.create_task(ask(dispatcher, {0: [0]}))
    await asyncio.sleep(0)
    async with asyncio.timeout(4):
        before = sum(dispatcher.asked.values())
        while sum(dispatcher.asked.values()) < before + 2:  # first the one, then the other too
            await asyncio.sleep(0.001)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


async def test_a_host_that_has_never_answered_is_hedged_too(experts_world: World) -> None:
    silent, other = await experts_world.host(0), await experts_world.host(0)
    silent.handler.pause_s = 600.0
    dispatcher = await experts_world.dispatcher()
    await ask(dispatcher, {0: [0]})
    assert dispatcher.asked[other.node_id] == 1


async def test_nobody_is_an_error_that_names_layer_and_expert_unless_somebody_comes(experts_world: World) -> None:
    await experts_world.host(0)
    dispatcher = await experts_world.dispatcher()
    started_s = time.monotonic()
    with pytest.raises(ExpertUnavailable, match=r"layer 1 expert 6 has no host.*--experts 1:6"):
        await ask(dispatcher, {0: [1], 6: [0]})
    assert 0.9 < time.monotonic() - started_s < 2.0
    asking = asyncio.create_task(ask(dispatcher, {0: [1], 6: [0]}))
    await asyncio.sleep(0)
    await experts_world.host(6)
    await asking


async def test_a_host_that_lies_about_its_rows_is_replaced(experts_world: World) -> None:
    liar, honest = await experts_world.host(0), await experts_world.host(0)
    liar.handler.lies = True
    dispatcher = await experts_world.dispatcher()
    for _ in range(10):
        await ask(dispatcher, {0: [0, 3]})
    assert dispatcher.asked[liar.node_id] < dispatcher.asked[honest.node_id] + 1


async def test_who_is_only_talked_about_is_not_waited_for(experts_world: World) -> None:
    with ExitStack() as stack:
        for nth in range(5):  # that take a connection and say nothing
            silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            honest = experts_world.facts[-1] if nth else (await experts_world.host(0)).fact
            address = Address("127.0.0.1", silent.getsockname()[1])
            experts_world.facts.insert(0, replace(honest, node_id=NodeId("abcde"[nth] * 52), address=address))
        dispatcher = await experts_world.dispatcher()
        await ask(dispatcher, {0: [0]})  # fakes too, for as long as nobody has been met
        met = dispatcher.asked.copy()
        for _ in range(60):
            await ask(dispatcher, {0: [0]})
        assert dispatcher.asked - met == {honest.node_id: 60}
        await dispatcher.close()


async def test_hosts_that_nobody_names_any_more_are_forgotten(
    experts_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, staying = await experts_world.host(0), await experts_world.host(1)
    dispatcher = await experts_world.dispatcher()
    await ask(dispatcher, {0: [0], 1: [1]})
    assert set(dispatcher.asked) == {gone.node_id, staying.node_id}
    monkeypatch.setattr("node.experts.dispatcher.SWEEP_S", 0.0)
    experts_world.facts.remove(gone.fact)
    async with asyncio.timeout(10):
        while gone.node_id in dispatcher.asked or gone.handler.n_streams:
            await ask(dispatcher, {1: [1]})
    assert set(dispatcher.asked) == {staying.node_id}


async def test_a_full_host_refuses_and_the_others_are_asked(experts_world: World) -> None:
    full, free = await experts_world.host(0, max_waiting_rows=1), await experts_world.host(0)
    full.handler.pause_s = 0.05
    dispatcher = await experts_world.dispatcher()
    await asyncio.gather(*(ask(dispatcher, {0: [0, 1, 2]}) for _ in range(20)))
    assert dispatcher.asked[free.node_id] > 0


async def test_a_host_that_has_lost_an_expert_is_not_asked_for_ever(experts_world: World) -> None:
    host = await experts_world.host(0)
    experts_world.facts[0] = replace(host.fact, experts=merge_experts([ExpertId(1, 0), ExpertId(1, 5)]))
    dispatcher = await experts_world.dispatcher()
    started_s = time.monotonic()
    with pytest.raises(ExpertUnavailable, match=r"layer 1 expert 5 has no host.*is not loaded here"):
        await ask(dispatcher, {0: [0], 5: [0]})
    assert time.monotonic() - started_s < 2.0
    await ask(dispatcher, {0: [0]})


async def test_another_profile_or_release_is_refused(experts_world: World) -> None:
    host = await experts_world.host(0)
    async with Dialer(issue(NodeKey.generate()), RpcConfig.loopback()) as dialer:
        connection = await dialer.connect(host.fact.address, host.node_id)
        for opening in (replace(OPENING, profile=Profile("fp32")), replace(OPENING, release=Infohash("cd" * 20))):
            stream = connection.apply_experts(opening)
            call = ExpertCall(1, 1, ((0, (0,)),), Rows(1, "bf16", bytes(2 * ARGS.dim)))
            with pytest.raises(RemoteProtocolError, match="this node"):
                await asyncio.gather(stream.send(call), anext(stream.replies()))
