"""Mistral's manners: unknown fields are refused, faults of a field are a list under `detail`, others a flat object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from swarm.gateway.dialects.dialect import Manner
from swarm.gateway.faults import BadField, Fault

UNPROCESSABLE = 422
MODEL_CODE = "1500"
"""Mistral's own for a model that does not exist."""


class MistralDialect:
    """Satisfies the `mistralai` client, which sorts errors by these shapes."""

    manner = Manner(
        name="mistral",
        seed_field="random_seed",
        default_temperature=0.7,
        full_context="model_length",
        echoes_prefix=True,
        always_streams_usage=True,
        always_has_content=True,
        foreign_fields=frozenset(
            [
                "seed",
                "max_completion_tokens",
                "logit_bias",
                "stream_options",
                "functions",
                "function_call",
                "store",
                "user",
                "modalities",
                "web_search_options",
                "min_p",
                "verbosity",
                "safety_identifier",
                "prompt_cache_retention",
            ]
        ),
    )

    def unknown_fields(self, names: Sequence[str]) -> tuple[str, ...]:
        if names:
            listed = ", ".join(name[:60] for name in names[:8])
            message = (
                f"unknown field{'s' if len(names) > 1 else ''} {listed}; leave out what this endpoint does not know"
            )
            raise BadField((names[0][:60],), message, "extra_forbidden")
        return ()

    def error(self, fault: Fault) -> tuple[int, Mapping[str, Any]]:
        if fault.loc:
            problem = {"type": fault.code, "loc": ["body", *fault.loc], "msg": fault.message}
            return UNPROCESSABLE, {"detail": [problem]}
        is_model = fault.code == "model_not_found"
        return fault.status, {
            "object": "error",
            "message": fault.message,
            "type": "invalid_model" if is_model else fault.kind,
            "param": fault.param,
            "code": MODEL_CODE if is_model else fault.code,
        }


MISTRAL = MistralDialect()
