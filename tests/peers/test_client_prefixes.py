"""The client against a scripted stage over real gRPC: what it offers, where it begins, and which pages it names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from swarm.client import ClientRelease, Generation, Journal
from swarm.client.generation import TokenLoop
from swarm.errors import RemoteProtocolError, SwarmError
from swarm.facts import Hop, Route
from swarm.identity import NodeKey
from swarm.messages import Failure, Open, Opened, Result, Step, TopLogits
from swarm.pages import PAGE, page_hashes
from swarm.release import ModelArgs
from swarm.sampling import SamplingParams
from swarm.terms import Infohash, NodeId, Profile, SessionId, Span

BF16, FP32 = Profile("bf16"), Profile("fp32")
SECRET = b"of this client"
PROMPT = tuple(7 * i % 300 for i in range(600))
ARGS = ModelArgs(
    architecture="mistral", dim=8, n_layers=2, n_heads=2, n_kv_heads=1, head_dim=4, hidden_dim=8, vocab_size=300,
    norm_eps=1e-5, rope_theta=1e4, n_experts=0, n_experts_per_tok=0, max_positions=4096,
)  # fmt: skip


def token_at(position: int) -> int:
    """What the scripted model says after position ids."""
    return position * 11 % 300


@dataclass
class ScriptedStage:
    """Both ends of a route of one hop. cached: what it answers each Open with, the last one for all further ones.

    fails_at: in the first epoch, a step that begins here or later is answered with a Failure.
    """

    cached: tuple[int, ...]
    fails_at: int | None = None
    openings: list[Open] = field(default_factory=list)
    steps: list[list[Step]] = field(default_factory=list)
    results_of: dict[int, asyncio.Queue[Result]] = field(default_factory=dict)

    async def run(
        self, opening: Open, steps: AsyncIterator[Step], caller: NodeId, /
    ) -> AsyncIterator[Opened | Failure]:
        n_before = len(self.openings)
        self.openings.append(opening)
        self.steps.append([])
        yield Opened(opening.epoch, self.cached[min(n_before, len(self.cached) - 1)])
        async for step in steps:
            if n_before == 0 and self.fails_at is not None and step.position >= self.fails_at:
                yield Failure(0, opening.hops[0].node_id, "SessionLost", "as the script has it")
                return
            self.steps[-1].append(step)
            end = step.position + step.n_rows
            rows = (TopLogits((token_at(end),), (0.0,), 0.0),) if step.n_logit_rows else ()
            self._results(opening.epoch).put_nowait(Result(opening.epoch, end, rows, ()))

    async def results(self, session_id: SessionId, epoch: int, caller: NodeId, /) -> AsyncIterator[Result]:
        while True:
            yield await self._results(epoch).get()

    def _results(self, epoch: int) -> asyncio.Queue[Result]:
        return self.results_of.setdefault(epoch, asyncio.Queue())


@dataclass
class OneRoute:
    """A finder that knows one route, and no other when it fails. wait_s: how long failures are borne."""

    route: Route
    wait_s: float = 20.0

    async def find(self, profile: Profile | None, broken: Route | None = None) -> Route:
        return self.route

    def avoid(self, node_ids: Any, error: SwarmError) -> None:
        pass

    def learn(self, route: Route, step_s: float) -> None:
        pass


async def generate(
    world: Any, stage: ScriptedStage, profile: Profile, max_tokens: int, *, wait_s: float = 20.0
) -> Generation:
    key, client = NodeKey.generate(), NodeKey.generate()
    _, address = await world.serve(key=key, stage=stage)
    route = Route((Hop(key.node_id, address, Span(0, ARGS.n_layers)),), profile)
    params = SamplingParams(max_tokens=max_tokens, temperature=0.0)
    release = ClientRelease("scripted", Infohash("ab" * 20), ARGS, None)
    journal = Journal.create(release.infohash, PROMPT, params, None, continues=True)
    finder: Any = OneRoute(route, wait_s)
    loop = TokenLoop(release, world.dialer(client), client.node_id, finder, journal, page_secret=SECRET)
    async with asyncio.timeout(30):
        ids = [event.id async for event in loop.events()]
    assert ids == [token_at(len(PROMPT) + n) for n in range(max_tokens)], "whatever was cached"
    return loop.generation


def fed(steps: list[Step]) -> list[tuple[int, int]]:
    return [(step.position, step.n_rows) for step in steps]


@pytest.mark.parametrize("profile", [BF16, FP32])
@pytest.mark.parametrize("cached", [0, 256, 512])
async def test_it_feeds_from_where_the_route_has_the_prompt_cached(world: Any, profile: Profile, cached: int) -> None:
    stage = ScriptedStage((cached,))
    generation = await generate(world, stage, profile, max_tokens=2)
    (opening,), (steps,) = stage.openings, stage.steps
    hashes = page_hashes(PROMPT, SECRET)
    assert opening.page_hashes == hashes
    assert len(hashes) == 2
    assert fed(steps) == [(0, 256), (256, 256), (512, 88), (600, 1)][cached // PAGE :]
    assert [step.page_hashes for step in steps] == [hashes[:1], hashes[1:], (), ()][cached // PAGE :]
    assert steps[0].payload == PROMPT[cached : cached + steps[0].n_rows]
    assert generation.usage.prompt_tokens_cached == cached
    assert generation.usage.prompt_tokens == len(PROMPT)


async def test_the_answer_s_pages_are_named_as_they_fill(world: Any) -> None:
    stage = ScriptedStage((512,))
    generation = await generate(world, stage, FP32, max_tokens=200)
    ids = [*PROMPT, *generation.ids]
    named = {step.position: step.page_hashes for step in stage.steps[0] if step.page_hashes}
    assert named == {767: page_hashes(ids, SECRET)[2:3]}


async def test_a_replay_in_bf16_repeats_every_step_and_asks_for_nothing(world: Any) -> None:
    stage = ScriptedStage((512, 0), fails_at=603)
    generation = await generate(world, stage, BF16, max_tokens=6)
    assert [len(opening.page_hashes) for opening in stage.openings] == [2, 0]
    assert fed(stage.steps[1]) == [(0, 256), (256, 256), (512, 88), *((600 + n, 1) for n in range(5))]
    assert generation.timings.n_replays == 1
    assert generation.usage.prompt_tokens_cached == 512, "what it began with"


async def test_a_replay_in_fp32_begins_with_what_the_next_route_has(world: Any) -> None:
    stage = ScriptedStage((0, 768), fails_at=770)
    generation = await generate(world, stage, FP32, max_tokens=180)
    ids = [*PROMPT, *generation.ids]
    assert [opening.page_hashes for opening in stage.openings] == [
        page_hashes(PROMPT, SECRET),
        page_hashes(ids, SECRET)[:3],
    ]
    assert fed(stage.steps[1]) == [(768, 3), *((771 + n, 1) for n in range(8))]
    assert generation.usage.prompt_tokens_cached == 0, "nothing was, when it began"


async def test_a_stage_that_claims_more_than_was_offered_breaks_the_protocol(world: Any) -> None:
    with pytest.raises(RemoteProtocolError, match="768 positions came cached, and 512 were offered"):
        await generate(world, ScriptedStage((768,)), FP32, max_tokens=2, wait_s=0.0)
