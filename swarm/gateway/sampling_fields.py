"""The fields that say how to sample, as every endpoint of both dialects has them."""

from __future__ import annotations

from typing import Any

from swarm.errors import BadArgument
from swarm.gateway.bodies import Fields
from swarm.gateway.config import GatewayConfig
from swarm.gateway.dialects import Dialect
from swarm.gateway.faults import BadField
from swarm.sampling import SamplingParams
from swarm.terms import counted

HARMLESS = (
    "user", "metadata", "store", "service_tier", "prompt_cache_key", "prompt_cache_retention", "safety_identifier",
    "prediction", "verbosity",
)  # fmt: skip
"""They steer billing, caching or speed, not what is answered."""

MAX_TOP_LOGPROBS = 20


def sampling_params(
    fields: Fields, dialect: Dialect, config: GatewayConfig, logprobs: int | None, *max_tokens_fields: str
) -> SamplingParams:
    """Take all fields of sampling. max_tokens_fields: names for the limit, the first that is there counts.

    Raises: BadField.
    """
    taken = [fields.whole(name, 1) for name in max_tokens_fields]
    max_tokens = next((value for value in taken if value is not None), config.default_max_tokens)
    temperature = fields.number("temperature", 0.0, 100.0)
    asked: dict[str, Any] = {
        "max_tokens": max_tokens,
        "temperature": dialect.manner.default_temperature if temperature is None else float(temperature),
        "seed": _seed(fields, dialect),
        "stop": tuple(text for text in fields.texts("stop") if text),
        "logprobs": logprobs,
    }
    for name in ("top_p", "min_p"):
        value = fields.number(name, 0.0, 1.0)
        if value is not None:
            asked[name] = float(value)
    top_k = fields.whole("top_k", -1)  # -1 is vLLM's word for all
    asked["top_k"] = max(0, top_k or 0)
    _refuse_what_is_not_done(fields)
    fields.ignore(*HARMLESS)
    try:
        return SamplingParams(**asked)
    except BadArgument as error:
        name = error.message.partition(" ")[0]
        raise BadField((name if name in asked else "body",), error.message) from error


def chat_logprobs(fields: Fields) -> int | None:
    """logprobs: true, and top_logprobs: how many alternatives."""
    is_wanted = fields.flag("logprobs")
    n_top = fields.whole("top_logprobs", 0, MAX_TOP_LOGPROBS)
    if n_top is not None and n_top > 0 and not is_wanted:
        raise BadField(
            ("top_logprobs",), "top_logprobs asks for alternatives to logprobs; set logprobs to true with it"
        )
    return (n_top or 0) if is_wanted else None


def number_of_choices(fields: Fields, n_prompts: int, config: GatewayConfig) -> int:
    n = fields.whole("n", 1) or 1
    if n * n_prompts > config.max_choices:
        prompts = counted(n_prompts, "prompt")
        message = f"{n} answers to each of {prompts} are {n * n_prompts}; the most is {config.max_choices}"
        raise BadField(("n",), f"{message}: send several requests", "out_of_range")
    return n


def streaming(fields: Fields, dialect: Dialect) -> tuple[bool, bool]:
    """stream, and whether the stream ends with the usage."""
    is_streamed = fields.flag("stream")
    if dialect.manner.always_streams_usage:
        return is_streamed, is_streamed
    options = fields.object("stream_options") or {}
    include_usage = options.get("include_usage")
    if include_usage is not None and not isinstance(include_usage, bool):
        raise BadField(("stream_options", "include_usage"), "include_usage must be true or false", "bool_type")
    return is_streamed, is_streamed and bool(include_usage)


def _seed(fields: Fields, dialect: Dialect) -> int | None:
    """By the dialect's own name; OpenAI's, which lets unknown fields pass, takes Mistral's name as well."""
    seed = fields.whole(dialect.manner.seed_field, -(2**63), 2**63 - 1)
    if seed is None and dialect.manner.seed_field == "seed":
        seed = fields.whole("random_seed", -(2**63), 2**63 - 1)
    return seed


def _refuse_what_is_not_done(fields: Fields) -> None:
    for name in ("presence_penalty", "frequency_penalty"):
        fields.must_be(name, (0,), "this gateway does not penalise repetition")
    fields.must_be("repetition_penalty", (1,), "this gateway does not penalise repetition")
    fields.must_be("logit_bias", ({},), "this gateway does not bias single tokens")
    fields.must_be("min_tokens", (0,), "an answer ends where the model ends it")
