"""What a caller asks of the sampler."""

from __future__ import annotations

import math
from dataclasses import dataclass

from swarm.errors import BadArgument

TAIL_CUT = 1024
"""Candidates per row when top_k does not say. 8 KiB on the wire, as much as one hidden state of a 7B. Raising it sends
more of the tail; a trained model at temperature 1 or below leaves next to nothing beyond it."""

MAX_LOGPROBS = 20
"""The most alternatives that a token reports: the OpenAI API's limit."""

_MAX_STOPS = 16
_MAX_STOP_CHARS = 1024


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to turn each row of logits into a token, and when to end. Checked when built.

    temperature: 0 is greedy. top_k: 0 keeps all. top_p, min_p: of the tempered probabilities; 1.0 and 0.0 keep all.
    seed: None lets the client draw one (it reports which). stop: texts that end the generation and are not shown.
    logprobs: None for none, else so many alternatives beside each token (0: the token's own only).
    ignore_eos: goes on to max_tokens whatever the model says; for benchmarks.
    The filters apply in this order, as transformers and vLLM have it: temperature, top_k, top_p, min_p.
    Raises: BadArgument.
    """

    max_tokens: int = 256
    temperature: float = 0.7
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        _check_int("max_tokens", self.max_tokens, 1, 2**31 - 1)
        _check_int("top_k", self.top_k, 0, 2**31 - 1)
        if self.seed is not None:
            _check_int("seed", self.seed, -(2**63), 2**63 - 1)
        if self.logprobs is not None:
            _check_int("logprobs", self.logprobs, 0, MAX_LOGPROBS)
        _check_share("temperature", self.temperature, 0.0, 100.0)
        _check_share("top_p", self.top_p, 0.0, 1.0)
        _check_share("min_p", self.min_p, 0.0, 1.0)
        if self.top_p == 0.0:
            raise BadArgument("top_p is 0, which keeps no token at all; for the likeliest token set temperature to 0")
        if not isinstance(self.ignore_eos, bool):
            raise BadArgument(f"ignore_eos is {self.ignore_eos!r}; it must be True or False")
        object.__setattr__(self, "stop", _checked_stops(self.stop))

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0.0

    def n_top(self, vocab_size: int) -> int:
        """How many of the largest logits the last stage must send for these parameters.

        Exact for greedy and wherever top_k <= n_top. Without top_k the tail beyond TAIL_CUT candidates is cut off, as
        top_k=TAIL_CUT would: `sample` never draws from what was not sent.
        """
        wanted = 1 if self.is_greedy else (self.top_k or TAIL_CUT)
        return max(1, min(vocab_size, max(wanted, self.logprobs or 0)))


def _check_int(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise BadArgument(f"{name} is {value!r}; it must be a whole number from {low} to {high}")


def _check_share(name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadArgument(f"{name} is {value!r}; it must be a number from {low} to {high}")
    if not low <= value <= high:
        raise BadArgument(f"{name} is {value}; it must lie between {low} and {high}")


def _checked_stops(stop: object) -> tuple[str, ...]:
    if isinstance(stop, str) or not isinstance(stop, tuple | list):
        raise BadArgument(f"stop is {stop!r}; it must be a tuple of texts, such as stop=('\\n\\n',)")
    if len(stop) > _MAX_STOPS:
        raise BadArgument(f"stop has {len(stop)} texts; at most {_MAX_STOPS} are watched for")
    for text in stop:
        if not isinstance(text, str) or not 0 < len(text) <= _MAX_STOP_CHARS:
            raise BadArgument(f"stop contains {text!r:.80}; each must be a text of 1 to {_MAX_STOP_CHARS} characters")
    return tuple(stop)
