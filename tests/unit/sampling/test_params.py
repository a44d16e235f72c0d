from __future__ import annotations

import dataclasses

import pytest

from swarm.errors import BadArgument
from swarm.sampling import MAX_LOGPROBS, TAIL_CUT, SamplingParams


def test_defaults_are_what_the_documentation_says() -> None:
    assert dataclasses.asdict(SamplingParams()) == {
        "max_tokens": 256,
        "temperature": 0.7,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "seed": None,
        "stop": (),
        "logprobs": None,
        "ignore_eos": False,
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", -1),
        ("max_tokens", 2.5),
        ("max_tokens", True),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("temperature", "hot"),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("top_k", -1),
        ("top_k", 1.0),
        ("min_p", -0.5),
        ("min_p", 1.5),
        ("seed", 2**63),
        ("seed", -(2**63) - 1),
        ("seed", "7"),
        ("stop", "###"),
        ("stop", ("",)),
        ("stop", (7,)),
        ("stop", ("x" * 1025,)),
        ("stop", tuple("abcdefghijklmnopq")),
        ("logprobs", -1),
        ("logprobs", MAX_LOGPROBS + 1),
        ("logprobs", True),
        ("ignore_eos", 1),
    ],
)
def test_nonsense_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(BadArgument, match=field):
        SamplingParams(**{field: value})  # type: ignore[arg-type]


def test_params_are_a_value() -> None:
    params = SamplingParams(stop=["a", "b"])  # type: ignore[arg-type]
    assert params.stop == ("a", "b")
    assert hash(params) == hash(SamplingParams(stop=("a", "b")))


@pytest.mark.parametrize(
    ("params", "vocab_size", "n_top"),
    [
        (SamplingParams(temperature=0.0), 32000, 1),
        (SamplingParams(temperature=0.0, logprobs=5), 32000, 5),
        (SamplingParams(temperature=0.0, logprobs=5), 3, 3),
        (SamplingParams(), 32000, TAIL_CUT),
        (SamplingParams(), 300, 300),
        (SamplingParams(top_k=40), 32000, 40),
        (SamplingParams(top_k=3, logprobs=20), 32000, 20),
        (SamplingParams(top_k=5000), 32000, 5000),
        (SamplingParams(top_k=5000), 300, 300),
    ],
)
def test_no_more_logits_are_asked_for_than_are_needed(params: SamplingParams, vocab_size: int, n_top: int) -> None:
    assert params.n_top(vocab_size) == n_top
