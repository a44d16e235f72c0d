"""POST /v1/completions (texts, or what stands between prompt and suffix) and /v1/fim/completions -> Asked."""

from __future__ import annotations

from typing import Any

from swarm.gateway.asked import Asked, Prompt
from swarm.gateway.bodies import Fields, shown
from swarm.gateway.config import GatewayConfig
from swarm.gateway.dialects import Dialect
from swarm.gateway.faults import BadField
from swarm.gateway.models import ModelRegistry, ServedModel
from swarm.gateway.prompts import check_fits, tokenizer_of
from swarm.gateway.sampling_fields import number_of_choices, sampling_params, streaming

COMPLETIONS_PATH = "/v1/completions"
FIM_PATH = "/v1/fim/completions"
MAX_TEXT_LOGPROBS = 5


def completion_request(body: dict[str, Any], dialect: Dialect, registry: ModelRegistry, config: GatewayConfig) -> Asked:
    """Raises: BadField and other BadArgument, Refused, UnknownModel, ModelNotOpen, ContextLengthExceeded."""
    fields = Fields(body, dialect.manner.foreign_fields)
    model = registry.get(fields.required_text("model"))
    given = _given_prompts(fields.take("prompt"))
    suffix = fields.text("suffix")
    echo = fields.flag("echo")
    logprobs = fields.whole("logprobs", 0, MAX_TEXT_LOGPROBS)
    if echo and logprobs is not None:
        raise BadField(("logprobs",), "logprobs of a prompt that is echoed are not told; leave out echo or logprobs")
    params = sampling_params(fields, dialect, config, logprobs, "max_tokens")
    n = number_of_choices(fields, len(given), config)
    is_streamed, streams_usage = streaming(fields, dialect)
    fields.must_be("best_of", (1, n), "this gateway answers each choice that it makes")
    ignored = dialect.unknown_fields(fields.unknown)
    return Asked(
        endpoint=COMPLETIONS_PATH,
        model=model,
        is_chat=False,
        prompts=tuple(_prompt(model, prompt, suffix, echo) for prompt in given),
        params=params,
        n=n,
        is_streamed=is_streamed,
        streams_usage=streams_usage,
        ignored=ignored,
    )


def fim_request(body: dict[str, Any], dialect: Dialect, registry: ModelRegistry, config: GatewayConfig) -> Asked:
    """As completion_request; the answer has the shape of a chat's."""
    fields = Fields(body, dialect.manner.foreign_fields)
    model = registry.get(fields.required_text("model"))
    prompt = fields.required_text("prompt")
    suffix = fields.text("suffix") or ""
    params = sampling_params(fields, dialect, config, None, "max_tokens")
    is_streamed, streams_usage = streaming(fields, dialect)
    ignored = dialect.unknown_fields(fields.unknown)
    return Asked(
        endpoint=FIM_PATH,
        model=model,
        is_chat=True,
        prompts=(_fim_prompt(model, prompt, suffix),),
        params=params,
        is_streamed=is_streamed,
        streams_usage=streams_usage,
        ignored=ignored,
    )


def _given_prompts(prompt: Any) -> list[str | list[int]]:
    """A text, a list of texts, token ids, or a list of lists of ids."""
    match prompt:
        case str():
            return [prompt]
        case [str(), *_] if all(isinstance(text, str) for text in prompt):
            return list(prompt)
        case [int(), *_] if all(_is_id(i) for i in prompt):
            return [list(prompt)]
        case [[int(), *_], *_] if all(isinstance(ids, list) and ids and all(map(_is_id, ids)) for ids in prompt):
            return [list(ids) for ids in prompt]
    raise BadField(("prompt",), f"prompt is {shown(prompt)}; it must be a text, token ids, or a list of such")


def _prompt(model: ServedModel, prompt: str | list[int], suffix: str | None, echo: bool) -> Prompt:
    if suffix is not None:
        if not isinstance(prompt, str):
            raise BadField(("suffix",), "a suffix goes with a prompt of text, not with token ids")
        filled = _fim_prompt(model, prompt, suffix)
        return Prompt(filled.ids, filled.continues, prompt if echo else "")
    if isinstance(prompt, str):
        ids = tokenizer_of(model).encode(prompt, bos=True)
        check_fits(model, ids)
        return Prompt(tuple(ids), True, prompt if echo else "")
    vocab_size = model.client.release.args.vocab_size
    if max(prompt) >= vocab_size:
        raise BadField(("prompt",), f"the prompt has the token id {max(prompt)}; {model.name} has {vocab_size} of them")
    check_fits(model, prompt)
    text = tokenizer_of(model).decode(prompt) if echo else ""
    return Prompt(tuple(prompt), True, text)


def _fim_prompt(model: ServedModel, prompt: str, suffix: str) -> Prompt:
    ids = tokenizer_of(model).encode_fim(prompt, suffix)
    check_fits(model, ids)
    return Prompt(tuple(ids), continues=True)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
