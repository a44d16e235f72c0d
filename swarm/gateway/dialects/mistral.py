"""Mistral's manners: unknown fields are refused, faults of a field are a list under `detail`, others a flat object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from swarm.gateway.dialects.dialect import Manner
from swarm.gateway.faults import Fault, Refused

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
            raise Refused(Fault(UNPROCESSABLE, message, code="extra_forbidden", param=names[0][:60]))
        return ()

    def error(self, fault: Fault) -> Mapping[str, Any]:
        if fault.status == UNPROCESSABLE:
            loc: list[str | int] = ["body"]
            loc += [int(part) if part.isdigit() else part for part in (fault.param or "").split(".") if part]
            return {"detail": [{"type": fault.code or "value_error", "loc": loc, "msg": fault.message}]}
        is_model = fault.code == "model_not_found"
        return {
            "object": "error",
            "message": fault.message,
            "type": "invalid_model" if is_model else fault.kind,
            "param": fault.param,
            "code": MODEL_CODE if is_model else fault.code,
        }


MISTRAL = MistralDialect()
