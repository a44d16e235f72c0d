"""Sessions that begin alike: the nodes compute what they share once, and the tokens are those of a lonely session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swarm.pages import PAGE
from swarm.sampling import SamplingParams
from swarm.terms import Profile

COMMON = [(7 * i) % 290 + 3 for i in range(530)]
FIRST, SECOND, THIRD = (COMMON + [(k * i) % 290 + 3 for i in range(40)] for k in (11, 13, 17))
GREEDY = SamplingParams(max_tokens=24, temperature=0.0, ignore_eos=True)
SEEDED = SamplingParams(max_tokens=24, temperature=1.0, seed=5, ignore_eos=True)


@pytest.mark.parametrize(("dtype", "exact"), [("bf16", None), ("bf16", False), ("fp32", None)])
async def test_a_common_prefix_is_computed_once_and_changes_no_token(
    dtype: str, exact: bool | None, release: Callable[..., Path], local_swarm: Callable[[Path], Any]
) -> None:
    swarm = local_swarm(release("tiny-mixtral"))
    await swarm.publish()
    settings: dict[str, Any] = {"profile": Profile(dtype), "exact": exact}
    _, doomed = await asyncio.gather(*(swarm.start(span, **settings) for span in ("0:3", "3:6")))
    async with swarm.client() as client, swarm.client(data_dir=swarm.work_dir / "lonely") as lonely:
        alone = {}
        for prompt, params in ((THIRD, SEEDED), (SECOND, GREEDY)):
            async with swarm.client(data_dir=swarm.work_dir / "lonely") as nobody:
                generation = await nobody.generate(prompt, params)
                assert generation.usage.prompt_tokens_cached == 0
                alone[tuple(prompt)] = generation.ids

        assert (await client.generate(FIRST, SEEDED)).usage.prompt_tokens_cached == 0
        second = await client.generate(SECOND, GREEDY)
        assert len(second.route.hops) == 2
        assert second.usage.prompt_tokens_cached == 2 * PAGE, "what both hops have"
        assert second.ids == alone[tuple(SECOND)]

        # Not even who knows the hashes finds the pages of another client.
        lonely._page_secret = client._page_secret
        same = await lonely.generate(SECOND, GREEDY)
        assert same.usage.prompt_tokens_cached == 0
        assert same.ids == second.ids

        # Nor does anybody else whom one client serves, as a gateway does.
        async with client.stream(SECOND, GREEDY, on_behalf_of="another") as stream:
            assert tuple([event.id async for event in stream]) == second.ids
        assert stream.result.usage.prompt_tokens_cached == 0

        spare = await swarm.start("3:6", **settings)
        async with client.stream(THIRD, SEEDED) as stream:
            async for event in stream:
                if event.index == 7:
                    await doomed.kill()
        third = stream.result
        assert third.usage.prompt_tokens_cached == 2 * PAGE
        assert third.timings.n_replays >= 1
        assert third.route.hops[-1].node_id == spare.events["started"][-1]["node_id"]
        assert third.ids == alone[tuple(THIRD)]
        again = await client.generate(THIRD, SEEDED)
        assert again.usage.prompt_tokens_cached == 2 * PAGE, "the spare has filed what it replayed"
        assert again.ids == third.ids


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
async def test_a_conversation_s_next_turn_finds_the_answer_where_chunks_do_not_matter(
    dtype: str, release: Callable[..., Path], local_swarm: Callable[[Path], Any]
) -> None:
    """Elsewhere a page that decoding filled has other bits than a prompt's chunk would give it, and is left alone."""
    swarm = local_swarm(release("tiny-mixtral"))
    await swarm.publish()
    await asyncio.gather(*(swarm.start(span, profile=Profile(dtype)) for span in ("0:3", "3:6")))
    question = COMMON[: PAGE - 10]
    async with swarm.client() as client:
        answer = await client.generate(question, SamplingParams(max_tokens=PAGE + 20, seed=1, ignore_eos=True))
        turn = [*question, *answer.ids, 5, 6, 7]
        following = await client.generate(turn, GREEDY)
        is_shared = following.route.profile.is_chunk_invariant
        assert is_shared or dtype == "bf16"
        assert following.usage.prompt_tokens_cached == (2 * PAGE if is_shared else 0)
    async with swarm.client(data_dir=swarm.work_dir / "lonely") as lonely:
        alone = await lonely.generate(turn, GREEDY)
        assert alone.usage.prompt_tokens_cached == 0
        assert alone.ids == following.ids
