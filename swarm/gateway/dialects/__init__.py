"""The two dialects of one API, and the rule for which one a request speaks.

The first of these that says something decides:
  1. the path: /v1/fim/… is Mistral's;
  2. the SDK: a User-Agent that names mistralai (or the older mistral-client) is Mistral's, the headers x-stainless-… or
     a User-Agent that begins with OpenAI/ or AsyncOpenAI/ are OpenAI's;
  3. the body: random_seed, safe_prompt, prompt_mode or guardrails, or a message with prefix, is Mistral's;
  4. everything else is OpenAI's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from swarm.gateway.dialects.dialect import Dialect
from swarm.gateway.dialects.mistral import MISTRAL
from swarm.gateway.dialects.openai import OPENAI

__all__ = ["MISTRAL", "OPENAI", "Dialect", "dialect_of_body", "dialect_of_head"]

MISTRAL_FIELDS = frozenset({"random_seed", "safe_prompt", "prompt_mode", "guardrails"})


def dialect_of_head(path: str, headers: Iterable[tuple[bytes, bytes]]) -> Dialect | None:
    """By path and SDK, so also for a request whose body is not known yet; None when they do not tell."""
    if path.startswith("/v1/fim/"):
        return MISTRAL
    found: Dialect | None = None
    for name, value in headers:
        if name.startswith(b"x-stainless-"):
            found = found or OPENAI
        elif name == b"user-agent":
            agent = value.lower()
            if b"mistralai" in agent or b"mistral-client" in agent:
                return MISTRAL
            if agent.startswith((b"openai/", b"asyncopenai/")):
                found = OPENAI
    return found


def dialect_of_body(body: Mapping[str, Any]) -> Dialect:
    """By the fields that only one of them has."""
    if not MISTRAL_FIELDS.isdisjoint(body):
        return MISTRAL
    messages = body.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    return MISTRAL if isinstance(last, dict) and "prefix" in last else OPENAI
