"""GET /v1/models and /v1/models/{id}: objects that the clients of both dialects accept."""

from __future__ import annotations

from typing import Any

from swarm.gateway.models import ServedModel


def model_fields(model: ServedModel) -> dict[str, Any]:
    """OpenAI's fields and Mistral's in one: neither client minds the other's."""
    return {
        "id": model.name,
        "object": "model",
        "created": model.created_s,
        "owned_by": "swarm",
        "name": model.name,
        "description": f"release {model.infohash}",
        "type": "base",
        "aliases": [model.infohash],
        "max_context_length": model.max_positions,
        "default_model_temperature": 0.7,
        "capabilities": {
            "completion_chat": model.capabilities.chat,
            "completion_fim": model.capabilities.fim,
            "function_calling": model.capabilities.tools,
            "fine_tuning": False,
            "vision": False,
            "classification": False,
        },
    }


def list_fields(models: tuple[ServedModel, ...]) -> dict[str, Any]:
    return {"object": "list", "data": [model_fields(model) for model in models]}
