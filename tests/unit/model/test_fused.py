"""A layer in one call of our own kernels: what the layer's text says, and bits that depend on nothing beside a row."""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import Future

import pytest
import torch
from torch import Tensor

from node.model import PAGE, Answers, Chunk, ExpertStore, KVCache, Numerics, SpanModel
from node.model.experts import Elsewhere
from node.model.fused import FusedLayer
from node.model.ops import native
from node.weights import PRESETS
from node.weights.synthetic import random_tensors
from swarm.release import ModelArgs
from swarm.terms import ExpertId, Span

pytestmark = pytest.mark.skipif(native.why_absent() is not None, reason=str(native.why_absent()))

M_PERTURB = -6  # of glibc's mallopt: fill what is given
N_POSITIONS = PAGE + 90
MIXTURE = dataclasses.replace(PRESETS["tiny-mixtral"].args, n_layers=3, windows=(None, 100, None), head_dim=32)
DENSE = dataclasses.replace(PRESETS["tiny-mistral"].args, n_layers=2, windows=(100, 100), head_dim=64)


def model_of(args: ModelArgs, numerics: Numerics, elsewhere: Elsewhere | None = None) -> SpanModel:
    span = Span(0, args.n_layers)
    model = SpanModel(args, span, numerics, trunks=(span,) if elsewhere else (), elsewhere=elsewhere)
    for layer_idx in span:
        model.load_layer(layer_idx, tensors_of(args, layer_idx))
    return model


def tensors_of(args: ModelArgs, layer_idx: int) -> dict[str, Tensor]:
    prefix = f"layers.{layer_idx}."
    tensors = random_tensors(args, 3)
    return {name.removeprefix(prefix): tensor for name, tensor in dict(tensors).items() if name.startswith(prefix)}


def rows_of(args: ModelArgs, n_rows: int = N_POSITIONS) -> Tensor:
    return torch.randn(n_rows, args.dim, generator=torch.Generator().manual_seed(n_rows)).bfloat16()


def new_cache(model: SpanModel) -> KVCache:
    return KVCache(model.args, model.span, dtype=model.dtype, device="cpu")


def fed(model: SpanModel, h: Tensor, n_rows: int) -> tuple[Tensor, KVCache]:
    """h in chunks of n_rows."""
    cache = new_cache(model)
    return torch.cat([model.forward(part, cache, cache.length) for part in h.split(n_rows)]), cache


@pytest.mark.parametrize("numerics", [Numerics(), Numerics(quantisation="int8")], ids=["bf16", "int8"])
@pytest.mark.parametrize("args", [MIXTURE, DENSE], ids=["mixture", "dense"])
@pytest.mark.parametrize("n_rows", [1, 70, N_POSITIONS])
def test_it_computes_what_the_layer_says(args: ModelArgs, numerics: Numerics, n_rows: int) -> None:
    model, text = model_of(args, numerics), model_of(args, numerics)
    for layer_idx, layer in text._layers.items():
        assert isinstance(layer, FusedLayer)
        text._layers[layer_idx] = layer.layer
    h = rows_of(args)
    (ours, our_cache), (theirs, their_cache) = fed(model, h, n_rows), fed(text, h, n_rows)
    assert torch.equal(ours, theirs)
    for layer_idx in model.span:
        pages = [
            [cache.layer(layer_idx).keys(0), cache.layer(layer_idx).values(0)] for cache in (our_cache, their_cache)
        ]
        assert torch.equal(torch.stack(pages[0]), torch.stack(pages[1]))
    assert model.experts.heat.shares() == text.experts.heat.shares()


@pytest.mark.parametrize("args", [MIXTURE, DENSE], ids=["mixture", "dense"])
@pytest.mark.parametrize("n_threads", [1, 2])
def test_sessions_side_by_side_on_threads_have_the_bits_that_each_has_alone(args: ModelArgs, n_threads: int) -> None:
    model = model_of(args, Numerics())
    starts, sizes = (0, 37, PAGE - 1, PAGE + 20), (60, 1, 2, 70)
    h = rows_of(args)
    expected, _ = fed(model, h, N_POSITIONS)
    caches = [new_cache(model) for _ in starts]
    for cache, start, n in zip(caches, starts, sizes, strict=True):
        for part in h[:start].split(64):
            model.forward(part, cache, cache.length)
        cache.prepare(n)
    torch.set_num_threads(n_threads)
    try:
        chunks = [Chunk(cache, n) for cache, n in zip(caches, sizes, strict=True)]
        parts = [h[start : start + n] for start, n in zip(starts, sizes, strict=True)]
        together = model.forward_batch(torch.cat(parts), chunks).split(list(sizes))
    finally:
        torch.set_num_threads(1)
    for start, n, rows in zip(starts, sizes, together, strict=True):
        assert torch.equal(rows, expected[start : start + n])


class Neighbour:
    """Another node's experts, which answer at once."""

    def __init__(self, experts: ExpertStore) -> None:
        self.experts = experts
        self.n_asked = 0

    def apply(self, layer_idx: int, x: Tensor, wanted: Mapping[int, Sequence[int]]) -> Future[Answers]:
        self.n_asked += 1
        future: Future[Answers] = Future()
        experts = self.experts.of_layer(layer_idx)
        future.set_result({idx: experts[idx](x[list(rows)]) for idx, rows in wanted.items()})
        return future


def test_experts_elsewhere_and_those_that_come_later_change_no_bit() -> None:
    whole = model_of(MIXTURE, Numerics())
    neighbour = Neighbour(whole.experts)
    trunk = model_of(MIXTURE, Numerics(), neighbour)
    h = rows_of(MIXTURE, 40)
    expected, _ = fed(whole, h, 7)
    assert torch.equal(fed(trunk, h, 7)[0], expected)
    assert neighbour.n_asked > 0
    for layer_idx in trunk.span:
        for expert_idx in range(MIXTURE.n_experts):
            prefix = f"feed_forward.experts.{expert_idx}."
            trunk.experts.load(ExpertId(layer_idx, expert_idx), tensors_of(MIXTURE, layer_idx), prefix)
    neighbour.n_asked = 0
    assert torch.equal(fed(trunk, h, 7)[0], expected)
    assert neighbour.n_asked == 0
    assert trunk.experts.heat.shares() == whole.experts.heat.shares() != {}


def test_a_session_that_is_not_finite_stays_so_and_harms_no_other() -> None:
    model = model_of(MIXTURE, Numerics())
    h = rows_of(MIXTURE, 8)
    spoilt = h.clone()
    spoilt[:, 3] = torch.nan
    caches = [new_cache(model), new_cache(model)]
    for cache in caches:
        cache.prepare(8)
    got = model.forward_batch(torch.cat((spoilt, h)), [Chunk(cache, 8) for cache in caches])
    assert torch.equal(got[8:], fed(model, h, 8)[0])
    assert got[:8].isnan().all()


def test_without_memory_nothing_is_written_to_a_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever lay in the memory that there was could be read from there later, and need not be finite."""
    model = model_of(MIXTURE, Numerics())
    cache = new_cache(model)
    libc = ctypes.CDLL(None)
    libc.mallopt(M_PERTURB, 0x5A)
    monkeypatch.setattr(torch, "get_num_threads", lambda: -1)  # nothing has room for the sums of so many
    try:
        with pytest.raises(MemoryError):
            model.forward(rows_of(MIXTURE, 8), cache, 0)
    finally:
        libc.mallopt(M_PERTURB, 0)
    assert not cache.layer(0).keys(0).any() and not cache.layer(0).values(0).any()


@pytest.mark.parametrize("changed", [{"head_dim": 16}, {"dtype": torch.float32}, {"quantisation": "int4"}], ids=str)
def test_what_our_kernels_do_not_fit_runs_as_the_text_says(changed: dict[str, object]) -> None:
    args = dataclasses.replace(MIXTURE, head_dim=changed.get("head_dim", 32))  # type: ignore[arg-type]
    numerics = Numerics(**{name: value for name, value in changed.items() if name != "head_dim"})  # type: ignore[arg-type]
    model = model_of(args, numerics)
    assert not any(isinstance(layer, FusedLayer) for layer in model._layers.values())
    assert fed(model, rows_of(args, 5).to(numerics.dtype), 5)[0].isfinite().all()
