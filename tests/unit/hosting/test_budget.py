"""How many layers a machine takes, and how fast one of them goes through it."""

from __future__ import annotations

import dataclasses
import itertools
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from node.hosting import cache_budget, layers_that_fit, measure_layer_time
from node.hosting.budget import RESERVED_SHARE, compiles_first
from node.model import PAGE, KVCache, Numerics, SpanModel
from node.weights import PRESETS
from swarm.errors import BadArgument
from swarm.release import ModelArgs
from swarm.terms import Span

ARGS = dataclasses.replace(PRESETS["tiny-mixtral"].args, n_layers=8, windows=(None,) * 8)
BF16, FP32 = Numerics(torch.bfloat16), Numerics(torch.float32)
LAYER = ARGS.n_layer_params * 2
OUTER = 2 * ARGS.vocab_size * ARGS.dim * 2


def memory_for(n_layers: float) -> int:
    """Enough in bf16 for the embeddings, the head and so many layers, and not a KiB more."""
    return int((OUTER + n_layers * LAYER) / (1 - RESERVED_SHARE)) + 1024


@pytest.mark.parametrize(("n_layers", "n_taken"), [(1, 1), (1.99, 1), (2, 2), (7.99, 7), (8, 8), (8.5, 8), (100, 8)])
def test_as_many_layers_as_fit_and_no_part_of_one(n_layers: float, n_taken: int) -> None:
    assert layers_that_fit(ARGS, BF16, memory_for(n_layers)) == n_taken


def test_wider_numbers_leave_room_for_fewer_layers() -> None:
    assert layers_that_fit(ARGS, FP32, memory_for(4)) < 3


@pytest.mark.parametrize(("quantisation", "n_taken"), [("int8", 6), ("int4", 8)])
def test_quantised_layers_leave_room_for_more_of_them(quantisation: str, n_taken: int) -> None:
    assert layers_that_fit(ARGS, Numerics(torch.bfloat16, quantisation), memory_for(3.05)) == n_taken


@pytest.mark.parametrize("n_layers", [0.99, 0, -100])
def test_too_little_for_one_layer_is_refused_with_what_mends_it(n_layers: float) -> None:
    with pytest.raises(BadArgument, match=r"one layer of this model takes .* MB.*--memory.*give it more.*dtype"):
        layers_that_fit(ARGS, BF16, memory_for(n_layers))


def test_the_disk_bounds_the_layers_too() -> None:
    stored = dataclasses.replace(ARGS, stored_dtype="bf16")
    assert layers_that_fit(stored, BF16, memory_for(8), OUTER + 3 * LAYER) == 3
    with pytest.raises(BadArgument, match="on disk and --disk allows"):
        layers_that_fit(stored, BF16, memory_for(8), OUTER + LAYER - 1)


@given(n_layers=st.integers(1, 40), memory_bytes=st.integers(0, 40 * LAYER), numerics=st.sampled_from([BF16, FP32]))
def test_what_fits_fits_and_one_layer_more_would_not(n_layers: int, memory_bytes: int, numerics: Numerics) -> None:
    args = dataclasses.replace(ARGS, n_layers=n_layers, windows=(None,) * n_layers)
    budget = memory_bytes * (1 - RESERVED_SHARE)

    def size(n: int) -> int:
        return (2 * args.vocab_size * args.dim + n * args.n_layer_params) * numerics.dtype.itemsize

    try:
        n_fitting = layers_that_fit(args, numerics, memory_bytes)
    except BadArgument:
        assert size(1) > budget - 1  # the budget is whole bytes
        return
    assert size(n_fitting) <= budget
    assert n_fitting == n_layers or size(n_fitting + 1) > budget - 1


def as_dense(args: ModelArgs) -> ModelArgs:
    return dataclasses.replace(args, architecture="mistral", n_experts=0, n_experts_per_tok=0)


@pytest.mark.parametrize("args", [ARGS, as_dense(ARGS)], ids=["mixtral", "dense"])
@pytest.mark.parametrize("numerics", [BF16, FP32, Numerics(torch.bfloat16, "", True)], ids=str)
def test_a_wider_layer_takes_longer(args: ModelArgs, numerics: Numerics) -> None:
    wide = dataclasses.replace(args, dim=args.dim * 16, hidden_dim=args.hidden_dim * 16)
    narrow_s, wide_s = (measure_layer_time(one, numerics, torch.device("cpu")) for one in (args, wide))
    assert 0 < narrow_s < wide_s


def test_steps_that_the_machine_held_up_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """All steps but one take ten seconds more: the layer still takes what it takes."""
    late_s = itertools.accumulate(0.0 if n % 2 == 0 or n == 11 else 10.0 for n in itertools.count())
    real = time.perf_counter
    monkeypatch.setattr("node.hosting.budget.time.perf_counter", lambda: real() + next(late_s))
    assert 0 < measure_layer_time(ARGS, BF16, torch.device("cpu")) < 5.0


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_only_our_own_gpu_kernels_are_compiled_before_they_are_measured(device: str) -> None:
    """Elsewhere a mixture would take the memory of all its experts for nothing."""
    assert not compiles_first(BF16, torch.device(device))
    assert not compiles_first(FP32, torch.device("cuda"))


@pytest.mark.parametrize("span", [Span(0, 2), Span(0, ARGS.n_layers)], ids=str)
def test_caches_have_room_for_a_session_or_the_node_does_not_start(span: Span) -> None:
    models = {span: SpanModel(ARGS, span, BF16)}
    a_page = KVCache.size_bytes_for(ARGS, span, PAGE, BF16.dtype, keeps_rows=span.end < ARGS.n_layers)
    assert cache_budget(a_page, 0, models) == a_page
    with pytest.raises(BadArgument, match="holds no session of these layers"):
        cache_budget(a_page - 1, 1 << 30, models)
    assert cache_budget(0, 16 * a_page, models) == 4 * a_page
    assert cache_budget(0, -1, models) == a_page, "a small node serves one session rather than none"
