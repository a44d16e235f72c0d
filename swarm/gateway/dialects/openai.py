"""OpenAI's manners: unknown fields are let pass with a warning, errors stand under `error`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from swarm.gateway.dialects.dialect import Manner
from swarm.gateway.faults import Fault


class OpenAIDialect:
    """Satisfies the `openai` client, and the many that were written for that API."""

    manner = Manner(
        name="openai",
        seed_field="seed",
        default_temperature=1.0,
        full_context="length",
        echoes_prefix=False,
        always_streams_usage=False,
        always_has_content=False,
    )

    def unknown_fields(self, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(names)

    def error(self, fault: Fault) -> tuple[int, Mapping[str, Any]]:
        told = {"message": fault.message, "type": fault.kind, "param": fault.param, "code": fault.code}
        return fault.status, {"error": told}


OPENAI = OpenAIDialect()
