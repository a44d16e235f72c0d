"""POST /v1/chat/completions: a body of either dialect -> Asked."""

from __future__ import annotations

from typing import Any

from swarm.errors import BadArgument
from swarm.gateway.asked import Asked, Prompt
from swarm.gateway.bodies import Fields, shown
from swarm.gateway.config import GatewayConfig
from swarm.gateway.dialects import Dialect
from swarm.gateway.faults import BadField
from swarm.gateway.messages import plain_messages, plain_tools, with_safe_prompt
from swarm.gateway.models import ModelRegistry, ServedModel
from swarm.gateway.prompts import check_fits, tokenizer_of
from swarm.gateway.sampling_fields import chat_logprobs, number_of_choices, sampling_params, streaming
from swarm.grammar import Grammar

CHAT_PATH = "/v1/chat/completions"


def chat_request(body: dict[str, Any], dialect: Dialect, registry: ModelRegistry, config: GatewayConfig) -> Asked:
    """Raises: BadField and other BadArgument, Refused, UnknownModel, ModelNotOpen, ContextLengthExceeded."""
    fields = Fields(body, dialect.manner.foreign_fields)
    model = registry.get(fields.required_text("model"))
    messages = plain_messages(fields.take("messages"))
    if fields.flag("safe_prompt"):
        messages = with_safe_prompt(messages)
    params = sampling_params(
        fields, dialect, config, chat_logprobs(fields), "max_completion_tokens", "max_tokens"
    )  # fmt: skip
    n = number_of_choices(fields, 1, config)
    is_streamed, streams_usage = streaming(fields, dialect)
    tools, grammar = _tools_and_grammar(fields)
    _refuse_what_is_not_done(fields)
    ignored = dialect.unknown_fields(fields.unknown)
    return Asked(
        endpoint=CHAT_PATH,
        model=model,
        is_chat=True,
        prompts=(_prompt(model, messages, tools, dialect),),
        params=params,
        n=n,
        is_streamed=is_streamed,
        streams_usage=streams_usage,
        tools=tools,
        grammar=grammar,
        ignored=ignored,
    )


def _prompt(
    model: ServedModel, messages: list[dict[str, Any]], tools: tuple[dict[str, Any], ...], dialect: Dialect
) -> Prompt:
    """The conversation as ids. An assistant's message with prefix at the end is gone on with."""
    if not model.capabilities.chat:
        raise BadArgument(
            f"{model.name} has no chat template: it completes text; use /v1/completions, or a "
            "model that was tuned to chat"
        )
    if tools and not model.capabilities.tools:
        raise BadField(
            ("tools",), f"{model.name} cannot call tools: its tokenizer has no tokens for them; leave them out"
        )
    ids = tokenizer_of(model).encode_chat(messages, tools)
    check_fits(model, ids)
    last = messages[-1]
    is_prefix = bool(last.get("prefix"))
    echo = last["content"] if is_prefix and dialect.manner.echoes_prefix and isinstance(last["content"], str) else ""
    return Prompt(tuple(ids), continues=is_prefix, echo=echo)


def _tools_and_grammar(fields: Fields) -> tuple[tuple[dict[str, Any], ...], Grammar | None]:
    """The tools that may be called, and what the answer is held to.

    A forced call comes before response_format. With a format and tools that need not be called, the format is kept.
    """
    tools = plain_tools(fields.list("tools"))
    choice = _tool_choice(fields.take("tool_choice"), tools)
    parallel = fields.take("parallel_tool_calls")
    if parallel is not None and not isinstance(parallel, bool):
        raise BadField(("parallel_tool_calls",), "parallel_tool_calls must be true or false", "bool_type")
    format_grammar = _format_grammar(fields.object("response_format"))
    if choice == "none":
        return (), format_grammar
    if choice == "auto":
        return tools, format_grammar
    return tools, Grammar.tool_call(tools, choice, parallel=parallel is not False)


def _tool_choice(choice: Any, tools: tuple[dict[str, Any], ...]) -> str:
    """auto, none, required, or the name of a tool."""
    if choice is None or (choice in ("auto", "none") and not tools):
        return "auto" if tools else "none"
    if choice in ("auto", "none"):
        return str(choice)
    if not tools:
        raise BadField(("tool_choice",), "tool_choice asks for a call, and there are no tools; give some")
    if choice in ("any", "required"):
        return "required"
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        words = 'auto, none, required, any, or {"type": "function", "function": {"name": …}}'
        raise BadField(("tool_choice",), f"tool_choice is {shown(choice)}; it must be {words}")
    if all(tool["function"]["name"] != name for tool in tools):
        raise BadField(
            ("tool_choice", "function", "name"), f"tool_choice names {name[:64]!r}, which is none of the tools"
        )
    return name


def _format_grammar(response_format: dict[str, Any] | None) -> Grammar | None:
    kind = "text" if response_format is None else response_format.get("type")
    if response_format is None or kind == "text":
        return None
    if kind == "json_object":
        return Grammar.json_object()
    if kind != "json_schema":
        words = f"response_format has the type {shown(kind)}; it must be text, json_object or json_schema"
        raise BadField(("response_format", "type"), words)
    named = response_format.get("json_schema")
    schema = named.get("schema", named.get("schema_definition")) if isinstance(named, dict) else None
    if not isinstance(schema, dict):
        raise BadField(("response_format", "json_schema", "schema"), "the schema is missing; give one", "missing")
    try:
        return Grammar.json_schema(schema)
    except BadArgument as error:
        raise BadField(("response_format", "json_schema", "schema"), error.message) from error


def _refuse_what_is_not_done(fields: Fields) -> None:
    fields.must_be("prompt_logprobs", (False, 0), "this gateway tells no logprobs of prompts")
    fields.must_be("top_prompt_logprobs", (0,), "this gateway tells no logprobs of prompts")
    fields.must_be("guardrails", ([],), "this gateway moderates nothing")
    fields.must_be("prompt_mode", (), "the models here have no reasoning mode of their own")
    fields.must_be("reasoning_effort", ("none",), "the models here have no reasoning mode of their own")
    fields.must_be("modalities", (["text"],), "the models here write text only")
    fields.must_be("functions", ([],), "functions have become tools: send them in the field tools")
    fields.must_be("function_call", ("auto", "none"), "function_call has become tool_choice")
    fields.must_be("web_search_options", (), "this gateway does not search the web")
