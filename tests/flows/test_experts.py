"""Single experts on nodes of their own: six small machines together are one Mixtral, with the tokens of one process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from swarm.cli.release_plan import parse_experts
from swarm.facts import LayerHeat
from swarm.release import read_folder_layout
from swarm.sampling import SamplingParams
from swarm.terms import Span

GREEDY = SamplingParams(max_tokens=24, temperature=0.0, ignore_eos=True)
PROMPTS = [[5, 6, 7, 8, 9], [(7 * i) % 500 + 3 for i in range(40)], [500, 1, 2]]
MOST = 1.02


def greedy_by_transformers(folder: Path, prompt: list[int], n_tokens: int) -> list[int]:
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        answer = model.generate(torch.tensor([prompt]), max_new_tokens=n_tokens, do_sample=False, eos_token_id=None)
    return list(answer[0, len(prompt) :].tolist())


async def test_six_nodes_none_of_which_holds_two_layers_are_one_mixtral(
    release: Callable[..., Path], local_swarm: Callable[[Path], Any]
) -> None:
    folder = release("tiny-mixtral")
    expected = [await asyncio.to_thread(greedy_by_transformers, folder, prompt, 24) for prompt in PROMPTS]
    swarm = local_swarm(folder)
    await swarm.publish(16 << 10)
    trunks = [swarm.start(trunks=(Span.parse(span),)) for span in ("0:3", "3:6")]
    hosts = [swarm.start(experts=tuple(parse_experts(f"0-5:{i},{i + 4}"))) for i in range(4)]
    nodes = await asyncio.gather(*trunks, *hosts)
    layer_bytes = sum(tensor.size_bytes for tensor in read_folder_layout(folder).layer_tensors(0).values())
    assert max(node.events["progress"][-1]["needed_bytes"] for node in nodes) < 2 * layer_bytes
    async with swarm.client() as client:
        answers = await asyncio.gather(*(client.generate(prompt, GREEDY) for prompt in PROMPTS))
        status = await client.status()
    assert [list(answer.ids) for answer in answers] == expected
    assert [str(hop.span) for hop in answers[0].route.hops] == ["0:3", "3:6"]
    assert status.hosts_per_layer == (1,) * 6
    assert status.hosts_per_expert == ((1,) * 8,) * 6
    assert not status.missing_experts
    assert sum(len(node.asked) for node in nodes[:2]) == 8  # every host was asked by both trunks


async def test_a_hole_is_named_and_an_expert_fills_it(
    release: Callable[..., Path], local_swarm: Callable[[Path], Any]
) -> None:
    """Layers, a trunk and experts on one node, whose heat becomes known; what is whole serves as experts too."""
    swarm = local_swarm(release("tiny-mixtral"))
    await swarm.publish()
    first = await swarm.start("0:3", trunks=(Span(3, 6),), experts=tuple(parse_experts("3-5:0-6")))
    address = str(first.events["ready"][-1]["address"])
    async with swarm.client(peers=[address]) as client:
        status = await client.status()
        assert status.hosts_per_layer == (1, 1, 1, 0, 0, 0)
        assert status.hosts_per_expert == ((1,) * 8,) * 3 + ((1,) * 7 + (0,),) * 3
        assert [f"{e.layer_idx}:{e.expert_idx}" for e in status.missing_experts] == ["3:7", "4:7", "5:7"]
        await swarm.start(experts=tuple(parse_experts("3-5:7")))
        answer = await client.generate(PROMPTS[1], GREEDY)
        assert [str(hop.span) for hop in answer.route.hops] == ["0:6"]
        async with asyncio.timeout(30):
            while not (heat := next(n for n in (await client.status()).nodes if n.spans).heat):
                await asyncio.sleep(0.05)
    assert [layer.layer_idx for layer in heat] == list(range(6))
    assert all(isinstance(layer, LayerHeat) and abs(sum(layer.shares) - 2 * 255) <= 8 for layer in heat)


async def test_a_host_of_experts_fetches_little_more_than_those(
    release: Callable[..., Path], local_swarm: Callable[[Path], Any]
) -> None:
    swarm = local_swarm(release("demo", dtype="bf16"))
    await swarm.publish(16 << 10)
    node = await swarm.start(experts=tuple(parse_experts("0-2:3,4,5")))
    told = node.events["progress"][-1]
    assert (told["experts_loaded"], told["layers_total"]) == (9, 0)
    assert told["fetched_bytes"] <= MOST * told["needed_bytes"] < MOST * told["release_bytes"] / 8
