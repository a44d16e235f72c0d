"""What every endpoint checks of its prompts before the swarm is asked anything."""

from __future__ import annotations

from collections.abc import Sequence

from swarm.errors import BadArgument, ContextLengthExceeded
from swarm.gateway.models import ServedModel
from swarm.tokenizer import Tokenizer


def tokenizer_of(model: ServedModel) -> Tokenizer:
    """Raises: BadArgument."""
    tokenizer = model.client.release.tokenizer
    if tokenizer is None:
        raise BadArgument(f"{model.name} ships no tokenizer: send the prompt as token ids to /v1/completions")
    return tokenizer


def check_fits(model: ServedModel, ids: Sequence[int]) -> None:
    """Raises: ContextLengthExceeded, BadArgument (an empty prompt)."""
    if not ids:
        raise BadArgument("the prompt is empty; give at least one token")
    if len(ids) >= model.max_positions:
        raise ContextLengthExceeded(
            f"the prompt is {len(ids)} tokens, but {model.name} sees {model.max_positions} at a time, the answer's "
            "included; shorten it"
        )
