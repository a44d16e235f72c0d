"""The tokens flow: a prompt goes through nodes that hold parts of a model, and comes out as transformers would have
it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from swarm.client import Generation
from swarm.errors import BadArgument, ContextLengthExceeded
from swarm.sampling import SamplingParams

PROMPT = [int(i) for i in torch.randint(3, 300, (40,), generator=torch.Generator().manual_seed(5))]
GREEDY = SamplingParams(max_tokens=64, temperature=0.0, logprobs=20, ignore_eos=True)
SEEDED = SamplingParams(max_tokens=24, temperature=1.0, top_p=0.95, seed=11, ignore_eos=True)

SPLITS = {
    "tiny-mistral": (("0:6",), ("0:1", "1:6"), ("0:3", "3:5", "5:6")),
    "tiny-mixtral": (("0:6",), ("0:4", "4:6"), ("0:1", "1:4", "4:6")),
    "odd-mixtral": (("0:3",), ("0:2", "2:3"), ("0:1", "1:2", "2:3")),
}


def oracle(folder: Path) -> tuple[list[int], torch.Tensor]:
    """transformers' 64 greedy ids after PROMPT, and its log-softmax for each of them: (64, vocab)."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    ids = list(PROMPT)
    with torch.inference_mode():
        for _ in range(64):
            logits = model(torch.tensor([ids])).logits[0]
            ids.append(int(logits[-1].argmax()))
    return ids[len(PROMPT) :], torch.log_softmax(logits[len(PROMPT) - 1 :], dim=-1)


@pytest.mark.parametrize("format", ["hf", "mistral", "mistral-pth"])
@pytest.mark.parametrize("preset", list(SPLITS))
async def test_one_two_and_three_nodes_say_what_transformers_says(
    preset: str, format: str, release: Callable[..., Path], local_swarm: Callable[[Path], Any]
) -> None:
    expected_ids, expected_logprobs = oracle(release(preset, "hf"))
    seeded: set[tuple[int, ...]] = set()
    for split in SPLITS[preset]:
        swarm = local_swarm(release(preset, format))
        await swarm.publish()
        await asyncio.gather(*(swarm.start(span) for span in split))
        async with swarm.client() as client:
            stream = client.stream(PROMPT, GREEDY)
            events = [event async for event in stream]
            seeded.add((await client.generate(PROMPT, SEEDED)).ids)
        assert [str(hop.span) for hop in stream.result.route.hops] == list(split)
        assert [event.id for event in events] == expected_ids
        error = max(
            abs(logprob - float(row[token_id]))
            for event, row in zip(events, expected_logprobs, strict=True)
            for token_id, logprob in event.top_logprobs
        )
        assert error < 1e-4
        await swarm.close()
    assert len(seeded) == 1, "the same prompt and seed gave different tokens over different splits"


async def test_int8_nodes_say_the_same_over_any_split(
    release: Callable[..., Path], local_swarm: Callable[[Path], Any]
) -> None:
    from swarm.terms import Profile

    said = set()
    for split in (("0:6",), ("0:2", "2:6")):
        swarm = local_swarm(release("tiny-mixtral"))
        await swarm.publish()
        await asyncio.gather(*(swarm.start(span, profile=Profile("bf16", "int8")) for span in split))
        async with swarm.client() as client:
            generation = await client.generate(PROMPT, SEEDED)
        assert [str(hop.span) for hop in generation.route.hops] == list(split)
        assert str(generation.route.profile).startswith("bf16-int8-exact-")
        said.add(generation.ids)
        await swarm.close()
    assert len(said) == 1


async def test_bf16_agrees_with_fp32_in_most_tokens(
    release: Callable[..., Path], local_swarm: Callable[[Path], Any], record_property: Callable[[str, object], None]
) -> None:
    """bf16 rounds: each of its choices must be, by fp32's own measure, among the best. Teacher-forced on fp32's
    tokens.
    """
    from swarm.terms import Profile

    folder = release("tiny-mixtral")
    expected_ids, expected = oracle(folder)
    swarm = local_swarm(folder)
    await swarm.publish()
    await asyncio.gather(*(swarm.start(span, profile=Profile("bf16")) for span in ("0:4", "4:6")))
    one = SamplingParams(max_tokens=1, temperature=0.0, logprobs=1, ignore_eos=True)
    n_agreed, worst = 0, 0.0
    async with swarm.client() as client:
        for n in range(0, 64, 2):
            generation = await client.generate([*PROMPT, *expected_ids[:n]], one)
            n_agreed += generation.ids[0] == expected_ids[n]
            worst = max(worst, abs(generation.logprobs[0] - float(expected[n][generation.ids[0]])))
    record_property("bf16_top1_agreement", n_agreed / 32)
    record_property("bf16_max_logprob_error", worst)
    assert n_agreed >= 28
    assert worst < 0.25


async def test_two_sessions_at_once_are_as_each_alone(
    release: Callable[..., Path], local_swarm: Callable[[Path], Any]
) -> None:
    swarm = local_swarm(release("tiny-mixtral"))
    await swarm.publish()
    await asyncio.gather(swarm.start("0:2"), swarm.start("2:6"))
    prompts = [PROMPT, PROMPT[::-1], PROMPT[:7]]
    async with swarm.client() as client:
        alone = [await client.generate(prompt, GREEDY) for prompt in prompts]
        together = await asyncio.gather(*(client.generate(prompt, GREEDY) for prompt in prompts))
    assert [g.ids for g in together] == [g.ids for g in alone]
    assert len({g.ids for g in alone}) == 3


async def test_a_node_with_two_spans_serves_both_ends_of_one_route(
    release: Callable[..., Path], local_swarm: Callable[[Path], Any]
) -> None:
    expected_ids, _ = oracle(release("tiny-mixtral"))
    swarm = local_swarm(release("tiny-mixtral"))
    await swarm.publish()
    await asyncio.gather(swarm.start("0:2", "4:6"), swarm.start("2:4"))
    async with swarm.client() as client:
        generation = await client.generate(PROMPT, GREEDY)
    assert list(generation.ids) == expected_ids
    assert [str(hop.span) for hop in generation.route.hops] == ["0:2", "2:4", "4:6"]


async def test_a_long_prompt_travels_in_chunks_and_counts_them(
    release: Callable[..., Path], local_swarm: Callable[[Path], Any]
) -> None:
    from transformers import AutoModelForCausalLM

    folder = release("tiny-mistral")
    prompt = [int(i) for i in torch.randint(3, 300, (1100,), generator=torch.Generator().manual_seed(6))]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(4):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    swarm = local_swarm(folder)
    await swarm.publish()
    await asyncio.gather(swarm.start("0:2"), swarm.start("2:6"))
    async with swarm.client() as client:
        generation = await client.generate(prompt, SamplingParams(max_tokens=4, temperature=0.0, ignore_eos=True))
    assert list(generation.ids) == ids[1100:]
    assert generation.usage.prompt_tokens == 1100
    assert generation.finish_reason == "length"


async def test_leaving_a_stream_frees_its_sessions_on_every_node(
    release: Callable[..., Path], local_swarm: Callable[[Path], Any]
) -> None:
    swarm = local_swarm(release("tiny-mixtral"))
    await swarm.publish()
    await asyncio.gather(*(swarm.start(span, max_sessions=1) for span in ("0:3", "3:6")))
    async with swarm.client() as client:
        stream = client.stream(PROMPT, SamplingParams(max_tokens=2000, temperature=0.0, ignore_eos=True))
        async for event in stream:
            if event.index == 3:
                break
        await stream.cancel()
        assert stream.result.finish_reason == "cancelled"
        assert len(stream.result.ids) == 4
        again = await client.generate(PROMPT, GREEDY)  # both nodes have room for one session only
    assert again.ids[:4] == stream.result.ids


async def test_a_prompt_that_cannot_fit_is_refused_before_any_node_is_asked(
    release: Callable[..., Path], local_swarm: Callable[[Path], Any]
) -> None:
    swarm = local_swarm(release("odd-mixtral"))
    await swarm.publish()
    async with swarm.client(timeout_s=5.0) as client:
        with pytest.raises(ContextLengthExceeded, match="1024"):
            await client.generate([5] * 1024, GREEDY)
        with pytest.raises(BadArgument, match="empty"):
            await client.generate([], GREEDY)
        with pytest.raises(BadArgument, match="token ids"):
            await client.generate([300], GREEDY)
        with pytest.raises(BadArgument, match="tokenizer"):
            await client.generate("text", GREEDY)


async def test_the_answer_ends_where_the_context_ends(
    release: Callable[..., Path], local_swarm: Callable[[Path], Any]
) -> None:
    swarm = local_swarm(release("odd-mixtral"))
    await swarm.publish()
    await swarm.start("0:3")
    async with swarm.client() as client:
        generation = await client.generate([5] * 1020, GREEDY)
    assert (len(generation.ids), generation.finish_reason) == (4, "length")


async def test_text_in_text_out_with_stop_strings_and_chat(
    release: Callable[..., Path], local_swarm: Callable[[Path], Any]
) -> None:
    swarm = local_swarm(release("demo", dtype="bf16"))
    await swarm.publish()
    await swarm.start("0:12")
    params = SamplingParams(max_tokens=24, temperature=0.0)
    async with swarm.client() as client:
        stream = client.stream("Once upon a time", params)
        texts = [event.text async for event in stream]
        whole = stream.result
        assert "".join(texts) == whole.text == client.release.tokenizer.decode(whole.ids, continues=True)
        stop = whole.text[10:14]
        stopped = await client.generate(
            "Once upon a time", SamplingParams(max_tokens=24, temperature=0.0, stop=(stop,))
        )
        assert stopped.text == whole.text[: whole.text.index(stop)]
        assert stopped.finish_reason == "stop"
        chat: Generation = await client.chat([{"role": "user", "content": "Hello"}], params)
        assert chat.usage.prompt_tokens == len(
            client.release.tokenizer.encode_chat([{"role": "user", "content": "Hello"}])
        )


async def test_the_synchronous_client_streams_cancels_and_closes(
    release: Callable[..., Path], local_swarm: Callable[[Path], Any], tmp_path: Path
) -> None:
    import swarm as library

    local = local_swarm(release("tiny-mixtral"))
    magnet = await local.publish()
    await local.start("0:6")

    def use() -> tuple[Generation, Generation]:
        with library.connect(magnet, network="loopback", data_dir=tmp_path, timeout_s=20.0) as client:
            whole = client.generate(PROMPT, GREEDY)
            stream = client.stream(PROMPT, GREEDY)
            for event in stream:
                if event.index == 9:
                    stream.cancel()
            assert client.status().missing_layers == ()
            return whole, stream.result

    whole, cut = await asyncio.to_thread(use)
    assert cut.ids == whole.ids[:10]
    assert (whole.finish_reason, cut.finish_reason) == ("length", "cancelled")
