"""The `openai` client against a gateway over a three-node swarm: what its users do, and what they do wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import jsonschema
import openai
import pytest
import pytest_asyncio

pytestmark = pytest.mark.asyncio(loop_scope="module")

HELLO = [{"role": "user", "content": "Hello there."}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"enum": ["Paris", "Rome"]},
                "days": {"type": "integer", "minimum": 1, "maximum": 9},
            },
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(served: Any) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=120) as client:
        yield client


async def test_models(client: openai.AsyncOpenAI, served: Any) -> None:
    models = [model async for model in client.models.list()]
    assert [model.id for model in models] == [served.model]
    one = await client.models.retrieve(served.model)
    assert one.object == "model" and one.created > 0
    with pytest.raises(openai.NotFoundError, match="does not exist here; this gateway serves"):
        await client.models.retrieve("gpt-5")


async def test_a_chat_is_what_the_python_client_says(client: openai.AsyncOpenAI, served: Any) -> None:
    from swarm.sampling import SamplingParams

    answer = await client.chat.completions.create(
        model=served.model, messages=HELLO, max_tokens=10, seed=7, temperature=0.8, top_p=0.9
    )
    async with served.swarm.client() as direct:
        expected = await direct.chat(HELLO, SamplingParams(max_tokens=10, seed=7, temperature=0.8, top_p=0.9))
    assert answer.choices[0].message.content == expected.text
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (expected.usage.prompt_tokens, 10)
    assert answer.model == served.model and answer.id.startswith("chatcmpl-")


async def test_a_stream_adds_up_to_the_whole_answer(client: openai.AsyncOpenAI, served: Any) -> None:
    asked: dict[str, Any] = {"model": served.model, "messages": HELLO, "max_tokens": 10, "seed": 7}
    whole = await client.chat.completions.create(**asked)
    stream = await client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["length"]
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1


async def test_several_answers_side_by_side(client: openai.AsyncOpenAI, served: Any) -> None:
    asked: dict[str, Any] = {"model": served.model, "messages": HELLO, "max_tokens": 5, "n": 3}
    whole = await client.chat.completions.create(**asked, seed=20)
    alone = await client.chat.completions.create(**{**asked, "n": 1}, seed=22)
    texts = [choice.message.content for choice in whole.choices]
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    assert len(set(texts)) == 3 and texts[2] == alone.choices[0].message.content
    assert whole.usage is not None and whole.usage.completion_tokens == 15
    streamed = {0: "", 1: "", 2: ""}
    async for chunk in await client.chat.completions.create(**asked, seed=20, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert list(streamed.values()) == texts


async def test_a_stop_text_ends_the_answer_and_is_not_shown(client: openai.AsyncOpenAI, served: Any) -> None:
    asked: dict[str, Any] = {"model": served.model, "messages": HELLO, "max_tokens": 12, "seed": 3}
    text = (await client.chat.completions.create(**asked)).choices[0].message.content or ""
    stop = text[len(text) // 2 :][:3]
    for stops in (stop, [stop, "never said"]):
        stopped = await client.chat.completions.create(**asked, stop=stops)
        assert stopped.choices[0].finish_reason == "stop"
        assert stopped.choices[0].message.content == text[: text.index(stop)]


async def test_logprobs_of_a_chat(client: openai.AsyncOpenAI, served: Any) -> None:
    asked: dict[str, Any] = {"model": served.model, "messages": HELLO, "max_tokens": 6, "temperature": 0}
    answer = await client.chat.completions.create(**asked, logprobs=True, top_logprobs=3)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None and len(logprobs.content) == 6
    for token in logprobs.content:
        assert len(token.top_logprobs) == 3
        assert token.logprob == token.top_logprobs[0].logprob == max(top.logprob for top in token.top_logprobs)
        assert bytes(token.bytes or []).decode("utf-8", "replace") == token.token
    said = b"".join(bytes(token.bytes or []) for token in logprobs.content).decode("utf-8", "replace")
    assert said.removeprefix(" ") == answer.choices[0].message.content
    streamed: list[Any] = []
    async for chunk in await client.chat.completions.create(**asked, logprobs=True, top_logprobs=3, stream=True):
        streamed += (chunk.choices[0].logprobs.content or []) if chunk.choices[0].logprobs else []
    assert [token.token for token in streamed] == [token.token for token in logprobs.content]


async def test_completions_of_texts_and_of_ids(client: openai.AsyncOpenAI, served: Any) -> None:
    asked: dict[str, Any] = {"model": served.model, "max_tokens": 4, "temperature": 0}
    two = await client.completions.create(**asked, prompt=["Once upon a time", "The sea"], logprobs=2)
    assert [choice.index for choice in two.choices] == [0, 1]
    tokenizer = served.gateway.services.registry.models[0].client.release.tokenizer
    by_ids = await client.completions.create(**asked, prompt=tokenizer.encode("The sea"))
    assert by_ids.choices[0].text == two.choices[1].text
    logprobs = two.choices[0].logprobs
    assert logprobs is not None and len(logprobs.tokens or []) == 4
    assert "".join(logprobs.tokens or []) == two.choices[0].text
    assert logprobs.text_offset == [len("".join((logprobs.tokens or [])[:i])) for i in range(4)]
    echoed = await client.completions.create(**asked, prompt="The sea", echo=True)
    assert echoed.choices[0].text == "The sea" + two.choices[1].text


async def test_a_suffix_makes_it_fill_in(client: openai.AsyncOpenAI, served: Any) -> None:
    asked: dict[str, Any] = {
        "model": served.model,
        "prompt": "def area(r):\n    return ",
        "max_tokens": 5,
        "temperature": 0,
    }
    filled = await client.completions.create(**asked, suffix="\n\nprint(area(2))")
    plain = await client.completions.create(**asked)
    tokenizer = served.gateway.services.registry.models[0].client.release.tokenizer
    n_prompt = len(tokenizer.encode_fim(asked["prompt"], "\n\nprint(area(2))"))
    assert filled.usage is not None and filled.usage.prompt_tokens == n_prompt
    assert filled.choices[0].text != plain.choices[0].text


async def test_json_schema_output_parses_and_validates(client: openai.AsyncOpenAI, served: Any) -> None:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 8},
            "age": {"type": "integer", "minimum": 0, "maximum": 99},
        },
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    named: Any = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema, "strict": True}}
    for seed in range(3):
        answer = await client.chat.completions.create(
            model=served.model, messages=HELLO, max_tokens=120, seed=seed, temperature=1.0,
            response_format=named,
        )  # fmt: skip
        assert answer.choices[0].finish_reason == "stop"
        jsonschema.validate(json.loads(answer.choices[0].message.content or ""), schema)


async def test_a_required_tool_is_called_with_arguments_that_fit(client: openai.AsyncOpenAI, served: Any) -> None:
    named = {"type": "function", "function": {"name": "weather"}}
    for choice in ("required", named):
        asked: dict[str, Any] = {
            "model": served.model, "messages": HELLO, "tools": [WEATHER, CLOCK], "tool_choice": choice,
            "parallel_tool_calls": False, "max_tokens": 120, "seed": 5,
        }  # fmt: skip
        answer = await client.chat.completions.create(**asked)
        assert answer.choices[0].finish_reason == "tool_calls"
        calls = answer.choices[0].message.tool_calls or []
        assert len(calls) == 1 and calls[0].type == "function"
        assert calls[0].function.name in (("weather",) if choice is named else ("weather", "clock"))
        arguments = json.loads(calls[0].function.arguments)
        if calls[0].function.name == "weather":
            jsonschema.validate(arguments, WEATHER["function"]["parameters"])  # type: ignore[index]
        chunks = [chunk async for chunk in await client.chat.completions.create(**asked, stream=True)]
        streamed = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
        assert [(c.index, c.function and c.function.arguments) for c in streamed] == [(0, calls[0].function.arguments)]
        assert chunks[-1].choices[0].finish_reason == "tool_calls"


async def test_a_conversation_goes_on_after_a_call(client: openai.AsyncOpenAI, served: Any) -> None:
    """The call's id is one that another server made up, longer than Mistral's templates take."""
    call = {
        "id": "call_abcdefghijklmnop",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city":"Rome"}'},
    }
    messages: list[Any] = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "How is Rome?"}]},
        {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None},
        {"role": "tool", "tool_call_id": "call_abcdefghijklmnop", "content": "Sunny."},
    ]
    answer = await client.chat.completions.create(model=served.model, messages=messages, tools=[WEATHER], max_tokens=4)  # type: ignore[list-item]
    assert answer.usage is not None and answer.usage.completion_tokens == 4


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"temperature": "warm"}, "temperature is \"warm\"; it must be a number"),
        ({"temperature": -1}, "temperature is -1; it must be from 0"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"n": 99}, "the most is 16"),
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "use system, user, assistant or tool"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "read text only"),
        ({"presence_penalty": 0.5}, "does not penalise repetition"),
        ({"tool_choice": "required"}, "there are no tools"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "1 to 64 letters"),
        ({"response_format": {"type": "yaml"}}, "text, json_object or json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "the schema is missing"),
        ({"top_logprobs": 3}, "set logprobs to true"),
        ({"messages": [{"role": "user", "content": "word " * 600}]}, "sees 512 at a time"),
    ],
)  # fmt: skip
async def test_a_bad_request_is_400_and_says_why(
    changed: dict[str, Any], said: str, client: openai.AsyncOpenAI, served: Any
) -> None:
    asked: dict[str, Any] = {"model": served.model, "messages": HELLO, "max_tokens": 2, **changed}
    with pytest.raises(openai.BadRequestError) as caught:
        await client.post("/chat/completions", body=asked, cast_to=object)
    assert said in caught.value.message
    assert caught.value.type == "invalid_request_error"


async def test_a_schema_that_nobody_can_keep_is_400_even_in_a_stream(client: openai.AsyncOpenAI, served: Any) -> None:
    asked: dict[str, Any] = {"model": served.model, "messages": HELLO, "stream": True}
    schema = {"type": "object", "properties": {"a": {"type": "no such type"}}}
    asked["response_format"] = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    with pytest.raises(openai.BadRequestError, match="grammar cannot be used"):
        await client.chat.completions.create(**asked)


async def test_an_unknown_model_is_404(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await client.chat.completions.create(model="gpt-5", messages=HELLO)  # type: ignore[arg-type]
    assert caught.value.code == "model_not_found" and caught.value.param == "model"


async def test_unknown_fields_are_ignored_with_a_warning(client: openai.AsyncOpenAI, served: Any) -> None:
    raw = await client.chat.completions.with_raw_response.create(
        model=served.model, messages=HELLO, max_tokens=1, extra_body={"mirostat": 2, "user": "me"}  # type: ignore[arg-type]
    )  # fmt: skip
    assert raw.headers["warning"] == '299 swarm "ignored unknown fields: mirostat"'
    assert raw.headers["x-request-id"].startswith("req-")


async def test_the_context_s_end_is_a_finish_reason(client: openai.AsyncOpenAI, served: Any) -> None:
    answer = await client.completions.create(model=served.model, prompt=[5] * 508, max_tokens=100, temperature=0)
    assert answer.choices[0].finish_reason in ("length", "stop")
    assert answer.usage is not None and answer.usage.total_tokens <= 512


async def test_what_a_prompt_shares_with_an_earlier_one_is_told_as_cached(
    client: openai.AsyncOpenAI, served: Any
) -> None:
    asked: dict[str, Any] = {"model": served.model, "max_tokens": 2}
    common, cached = list(range(20, 300)), []
    for last, n in ((5, 1), (6, 1), (7, 2)):
        answer = await client.completions.create(prompt=[*common, last], n=n, **asked)
        assert answer.usage is not None and answer.usage.prompt_tokens_details is not None
        assert answer.usage.prompt_tokens == 281
        cached.append(answer.usage.prompt_tokens_details.cached_tokens)
    assert cached == [0, 256, 256], "of the prompt, however many answers it has"
    stream = await client.completions.create(
        prompt=[*common, 8], stream=True, stream_options={"include_usage": True}, **asked
    )
    usage = [chunk.usage async for chunk in stream if chunk.usage is not None][-1]
    assert usage.prompt_tokens_details is not None and usage.prompt_tokens_details.cached_tokens == 256


async def test_no_key_learns_what_another_has_asked(served: Any, open_gateway: Any, tmp_path: Path) -> None:
    keys, cached = ("sk-the-key-of-one", "sk-the-key-of-another"), []
    async with open_gateway(served.swarm, api_keys=keys, data_dir=tmp_path) as gateway:
        for key in (*keys, *keys):
            async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as client:
                answer = await client.completions.create(model=served.model, prompt=[9] * 300, max_tokens=2)
                assert answer.usage is not None and answer.usage.prompt_tokens_details is not None
                cached.append(answer.usage.prompt_tokens_details.cached_tokens)
    assert cached == [0, 0, 256, 256]


async def test_a_client_that_leaves_ends_its_session_on_every_stage(client: openai.AsyncOpenAI, served: Any) -> None:
    stream = await client.chat.completions.create(
        model=served.model, messages=HELLO, max_tokens=480, stream=True, extra_body={"temperature": 1.5}  # type: ignore[arg-type]
    )  # fmt: skip
    async for _ in stream:
        break
    assert [node.n_sessions for node in served.nodes] == [1, 1, 1]
    await stream.close()
    await until_idle(served)


async def test_leaving_a_whole_answer_ends_it_too(served: Any) -> None:
    body = {"model": served.model, "messages": HELLO, "max_tokens": 480, "temperature": 1.5}
    async with httpx.AsyncClient(base_url=served.url, timeout=120) as http:
        asking = asyncio.create_task(http.post("/v1/chat/completions", json=body))
        async with asyncio.timeout(60):
            while not all(node.n_sessions for node in served.nodes):
                await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    await until_idle(served)


async def until_idle(served: Any) -> None:
    async with asyncio.timeout(60):
        while any(node.n_sessions for node in served.nodes) or served.gateway.services.limits.n_running:
            await asyncio.sleep(0.01)
