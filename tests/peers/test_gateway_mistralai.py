"""The `mistralai` client against a gateway over a three-node swarm: what its users do, and what they do wrong."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import jsonschema
import pytest
import pytest_asyncio
from mistralai.client import Mistral
from mistralai.client.errors import HTTPValidationError, SDKError

pytestmark = pytest.mark.asyncio(loop_scope="module")

HELLO = [{"role": "user", "content": "Hello there."}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "Tells it.", "parameters": SCHEMA}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(served: Any) -> AsyncIterator[Mistral]:
    async with Mistral(api_key="none", server_url=served.url, timeout_ms=120_000) as client:
        yield client


async def test_models(client: Mistral, served: Any) -> None:
    listed = await client.models.list_async()
    [card] = listed.data or []
    assert card.id == served.model and card.max_context_length == 512
    capabilities = card.capabilities
    assert capabilities.completion_chat and capabilities.completion_fim and capabilities.function_calling
    one = await client.models.retrieve_async(model_id=served.model)
    assert one.id == served.model


async def test_a_chat_with_a_random_seed_is_what_the_python_client_says(client: Mistral, served: Any) -> None:
    from swarm.sampling import SamplingParams

    answer = await client.chat.complete_async(model=served.model, messages=HELLO, random_seed=11, max_tokens=8)
    async with served.swarm.client() as direct:
        expected = await direct.chat(HELLO, SamplingParams(max_tokens=8, seed=11, temperature=0.7))
    assert answer.choices[0].message.content == expected.text
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.prompt_tokens == expected.usage.prompt_tokens and answer.usage.completion_tokens == 8


async def test_a_stream_ends_with_its_usage(client: Mistral, served: Any) -> None:
    asked: dict[str, Any] = {"model": served.model, "messages": HELLO, "random_seed": 11, "max_tokens": 8}
    whole = await client.chat.complete_async(**asked)
    chunks = [event.data async for event in await client.chat.stream_async(**asked)]
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == "length" and chunks[-1].usage == whole.usage


async def test_a_prefix_is_gone_on_with_and_said_again(client: Mistral, served: Any) -> None:
    messages = [*HELLO, {"role": "assistant", "content": "Well, good", "prefix": True}]
    asked: dict[str, Any] = {"model": served.model, "messages": messages, "random_seed": 2, "max_tokens": 6}
    whole = await client.chat.complete_async(**asked)
    said = whole.choices[0].message.content
    assert said.startswith("Well, good") and len(said) > len("Well, good")
    chunks = [event.data async for event in await client.chat.stream_async(**asked)]
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == said


async def test_safe_prompt_is_part_of_the_prompt(client: Mistral, served: Any) -> None:
    asked: dict[str, Any] = {"model": served.model, "messages": HELLO, "max_tokens": 1}
    plain = await client.chat.complete_async(**asked)
    safe = await client.chat.complete_async(**asked, safe_prompt=True)
    assert safe.usage.prompt_tokens > plain.usage.prompt_tokens + 20


async def test_fill_in_the_middle(client: Mistral, served: Any) -> None:
    asked: dict[str, Any] = {
        "model": served.model, "prompt": "def f(x):\n    return ", "suffix": "\nprint(f(1))", "max_tokens": 6,
        "temperature": 0,
    }  # fmt: skip
    whole = await client.fim.complete_async(**asked)
    tokenizer = served.gateway.services.registry.models[0].client.release.tokenizer
    assert whole.usage.prompt_tokens == len(tokenizer.encode_fim(asked["prompt"], asked["suffix"]))
    chunks = [event.data async for event in await client.fim.stream_async(**asked)]
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == whole.choices[0].message.content


async def test_tools(client: Mistral, served: Any) -> None:
    asked: dict[str, Any] = {"model": served.model, "messages": HELLO, "tools": [WEATHER], "max_tokens": 120}
    answer = await client.chat.complete_async(**asked, tool_choice="any", parallel_tool_calls=False, random_seed=1)
    [call] = answer.choices[0].message.tool_calls
    assert answer.choices[0].finish_reason == "tool_calls"
    assert call.function.name == "weather" and len(call.id) == 9
    jsonschema.validate(json.loads(call.function.arguments), SCHEMA)
    messages: list[Any] = [
        *HELLO,
        answer.choices[0].message,
        {"role": "tool", "name": "weather", "content": "Sunny.", "tool_call_id": call.id},
    ]
    after = await client.chat.complete_async(**{**asked, "messages": messages, "max_tokens": 3})
    assert after.usage.completion_tokens == 3


async def test_json_schema(client: Mistral, served: Any) -> None:
    answer = await client.chat.complete_async(
        model=served.model, messages=HELLO, max_tokens=60, random_seed=4,
        response_format={"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA, "strict": True}},
    )  # fmt: skip
    jsonschema.validate(json.loads(answer.choices[0].message.content), SCHEMA)


async def test_the_context_s_end_has_mistral_s_name(client: Mistral, served: Any) -> None:
    tokenizer = served.gateway.services.registry.models[0].client.release.tokenizer
    text = tokenizer.decode([1000] * 480)
    answer = await client.fim.complete_async(model=served.model, prompt=text, suffix="", max_tokens=500, temperature=0)
    assert answer.usage.total_tokens == 512
    assert answer.choices[0].finish_reason == "model_length"


async def test_an_unknown_model_has_mistral_s_error_shape(client: Mistral) -> None:
    with pytest.raises(SDKError) as caught:
        await client.chat.complete_async(model="mistral-large", messages=HELLO)
    body = json.loads(caught.value.body)
    assert caught.value.status_code == 404
    assert body["object"] == "error" and body["type"] == "invalid_model" and body["code"] == "1500"


async def test_a_field_of_the_other_dialect_is_refused(client: Mistral, served: Any) -> None:
    http = client.sdk_configuration.async_client
    for unknown in ({"seed": 1}, {"mirostat": 2}):
        body = {"model": served.model, "messages": HELLO, "random_seed": 1, "max_tokens": 1, **unknown}
        answer = await http.post(f"{served.url}/v1/chat/completions", json=body)
        assert answer.status_code == 422
        [problem] = answer.json()["detail"]
        assert problem["type"] == "extra_forbidden" and problem["loc"] == ["body", next(iter(unknown))]


async def test_a_bad_field_is_a_validation_error(client: Mistral, served: Any) -> None:
    with pytest.raises(HTTPValidationError) as caught:
        await client.chat.complete_async(model=served.model, messages=HELLO, temperature=-1)
    assert "temperature is -1" in str(caught.value.body)
