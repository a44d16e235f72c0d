"""What a request asks for, as plain values that no longer know their dialect's field names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from swarm.gateway.models import ServedModel
from swarm.grammar import Grammar
from swarm.sampling import SamplingParams


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt as ids.

    continues: the answer goes on in the middle of its text. echo: what each answer begins with.
    """

    ids: tuple[int, ...]
    continues: bool
    echo: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, checked as far as that is possible without the swarm.

    is_chat: answers are messages (chat, FIM), else texts. n: answers to each prompt. tools: those that the answer may
    call, as the request has them. ignored: fields that the gateway let pass without heeding them.
    """

    endpoint: str
    model: ServedModel
    is_chat: bool
    prompts: tuple[Prompt, ...]
    params: SamplingParams
    n: int = 1
    is_streamed: bool = False
    streams_usage: bool = False
    tools: tuple[dict[str, Any], ...] = ()
    grammar: Grammar | None = None
    ignored: tuple[str, ...] = ()

    @property
    def n_prompt_tokens(self) -> int:
        return sum(len(prompt.ids) for prompt in self.prompts)

    @property
    def most_tokens(self) -> int:
        """Of prompts and answers together, if every answer takes all that it may."""
        longest = self.model.max_positions
        per_answer = (min(self.params.max_tokens, longest - len(prompt.ids)) for prompt in self.prompts)
        return self.n_prompt_tokens + self.n * sum(per_answer)

    @property
    def choices(self) -> tuple[tuple[Prompt, SamplingParams], ...]:
        """Each answer's prompt and parameters, in the order of their index.

        Of one seed the k-th answer takes seed + k: several answers that were all the same would be of no use.
        """
        asked = [prompt for prompt in self.prompts for _ in range(self.n)]
        seed = self.params.seed
        if seed is None or len(asked) == 1:
            return tuple((prompt, self.params) for prompt in asked)
        return tuple((prompt, replace(self.params, seed=_wrapped(seed + k))) for k, prompt in enumerate(asked))


def _wrapped(seed: int) -> int:
    return (seed + 2**63) % 2**64 - 2**63
