"""What makes a dialect: its defaults, how it takes fields that it does not know, and how it words refusals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from swarm.gateway.faults import Fault


@dataclass(frozen=True, slots=True)
class Manner:
    """How answers of a dialect differ where the shapes agree.

    seed_field: the name of the seed. default_temperature: where the request names none. full_context: the finish reason
    of an answer that filled the context. echoes_prefix: the answer to an assistant message with prefix begins with it.
    always_streams_usage: in the last chunk, asked for or not. always_has_content: every chunk of a chat has content, ""
    where it adds none: Continue's reader of Mistral's streams takes it unseen. foreign_fields: the other dialect's,
    which this one does not know although the endpoints do.
    """

    name: str
    seed_field: str
    default_temperature: float
    full_context: str
    echoes_prefix: bool
    always_streams_usage: bool
    always_has_content: bool
    foreign_fields: frozenset[str] = frozenset()


class Dialect(Protocol):
    """One of OPENAI and MISTRAL."""

    @property
    def manner(self) -> Manner: ...

    def unknown_fields(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those to warn of in the header X-Swarm-Ignored-Fields. Raises: Refused where the dialect refuses them."""
        ...

    def error(self, fault: Fault) -> tuple[int, Mapping[str, Any]]:
        """The status and the body of an answer that says what went wrong."""
        ...
