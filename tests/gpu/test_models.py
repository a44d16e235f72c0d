"""Spans of layers on a GPU: against plain fp32 on a CPU, prefill against decode, batches against sessions alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import pytest
import torch
from torch import Tensor

from node.model import PAGE, Answers, Chunk, ExpertStore, KVCache, Numerics, SpanModel
from node.model.moe import MoE
from node.model.on_gpu import MAX_GRAPHS, MAX_SEEN, GpuLayer, Replays
from node.weights import PRESETS
from node.weights.synthetic import random_tensors
from swarm.release import ModelArgs
from swarm.terms import ExpertId, Span

IS_GPU = torch.cuda.is_available()
WINDOW = 100 if IS_GPU else 6
MIXTURE = dataclasses.replace(PRESETS["tiny-mixtral"].args, n_layers=3, windows=(None, WINDOW, None), head_dim=32)
DENSE = dataclasses.replace(
    PRESETS["tiny-mistral"].args, n_layers=2, windows=(WINDOW, WINDOW), head_dim=24, n_heads=6, n_kv_heads=2
)
CHUNK = PAGE + 16 if IS_GPU else 10
N_POSITIONS = CHUNK + (8 if IS_GPU else 4)
"""A chunk of a prompt, and rows that are decoded; an interpreter takes half a second for one of them."""

TOO_FAR = 5e-2
"""Of a row, relative to its length: bf16 rounds each sum of a few layers."""

TIE = 8e-2
"""Of two experts' logits, where their spread is about 1: bf16 rows may choose the other one."""


def tensors_of(args: ModelArgs, layer_idx: int) -> dict[str, Tensor]:
    prefix = f"layers.{layer_idx}."
    tensors = dict(random_tensors(args, 3))
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def model_of(args: ModelArgs, numerics: Numerics, device: torch.device | str) -> SpanModel:
    model = SpanModel(args, Span(0, args.n_layers), numerics, device=device)
    for layer_idx in model.span:
        model.load_layer(layer_idx, tensors_of(args, layer_idx))
    return model


def rows_of(args: ModelArgs, n_rows: int = N_POSITIONS, seed: int = 0) -> Tensor:
    return torch.randn(n_rows, args.dim, generator=torch.Generator().manual_seed(seed)).bfloat16()


def new_cache(model: SpanModel) -> KVCache:
    return KVCache(model.args, model.span, dtype=model.dtype, device=model.device)


def fed(model: SpanModel, h: Tensor, first: int) -> Tensor:
    """A chunk of `first` rows, then row by row, in the model's dtype on its device -> fp32 on the CPU."""
    cache = new_cache(model)
    h = h.to(model.device, model.dtype)
    outs = [model.forward(h[:first], cache, 0)] if first else []
    outs += [model.forward(row, cache, cache.length) for row in h[first:].split(1)]
    return torch.cat(outs).float().cpu()


def far_rows(got: Tensor, expected: Tensor) -> Tensor:
    """bool (T): rows that rounding alone does not explain."""
    off = (got - expected).norm(dim=-1) / expected.norm(dim=-1)
    return ~(off < TOO_FAR)


@pytest.fixture(scope="module")
def expected() -> Mapping[ModelArgs, Tensor]:
    """By plain torch in fp32 (our own kernels are for bf16)."""
    return {
        args: fed(model_of(args, Numerics(torch.float32), "cpu"), rows_of(args), CHUNK) for args in (MIXTURE, DENSE)
    }


@pytest.fixture(scope="module")
def ties(expected: Mapping[ModelArgs, Tensor]) -> Tensor:
    """bool (T): rows of MIXTURE for which, in some layer, two experts are about as good, of which one is chosen."""
    margins: list[list[Tensor]] = [[] for _ in range(MIXTURE.n_layers)]

    route = MoE.route

    def watched(moe: MoE, x: Tensor) -> tuple[Tensor, Tensor]:
        best = moe.gate(x).topk(moe.n_experts_per_tok + 1).values
        margins[moe.layer_idx].append(best[:, -2] - best[:, -1])
        return route(moe, x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MoE, "route", watched)
        got = fed(model_of(MIXTURE, Numerics(torch.float32), "cpu"), rows_of(MIXTURE), CHUNK)
    assert torch.equal(got, expected[MIXTURE])
    return torch.stack([torch.cat(of_layer) for of_layer in margins]).amin(0) < TIE


@pytest.mark.parametrize("args", [MIXTURE, DENSE], ids=["mixture", "dense"])
def test_a_span_computes_what_plain_torch_does(
    device: torch.device, args: ModelArgs, expected: Mapping[ModelArgs, Tensor], ties: Tensor
) -> None:
    model = model_of(args, Numerics(), device)
    assert all(isinstance(layer, GpuLayer) for layer in model._layers.values())
    got = fed(model, rows_of(args), CHUNK)
    far = far_rows(got, expected[args])
    if args.is_moe:
        assert not (far & ~ties).any()
        assert ties.float().mean() < 0.3
    else:
        assert not far.any()


@pytest.mark.parametrize("quantisation", ["int8", "int4"])
def test_quantised_layers_stay_near(
    device: torch.device, quantisation: str, expected: Mapping[ModelArgs, Tensor]
) -> None:
    got = fed(model_of(DENSE, Numerics(quantisation=quantisation), device), rows_of(DENSE), CHUNK)
    off = (got - expected[DENSE]).norm() / expected[DENSE].norm()
    assert 0 < off < {"int8": 0.03, "int4": 0.25}[quantisation]


@pytest.mark.parametrize(("n_heads", "head_dim"), [(6, 160), (130, 8)])
def test_heads_that_our_kernels_do_not_take_are_a_librarys(device: torch.device, n_heads: int, head_dim: int) -> None:
    args = dataclasses.replace(DENSE, n_heads=n_heads, head_dim=head_dim, n_layers=1, windows=(None,))
    model, plain = model_of(args, Numerics(), device), model_of(args, Numerics(torch.float32), "cpu")
    assert not any(isinstance(layer, GpuLayer) for layer in model._layers.values())
    h = rows_of(args, 4)
    assert not far_rows(fed(model, h, 3), fed(plain, h, 3)).any()


def test_sessions_together_are_sessions_alone(device: torch.device) -> None:
    """Prompts of several lengths in one batch, then steps of one row and of three."""
    model = model_of(MIXTURE, Numerics(), device)
    sizes = ((40, 1, 3), (130, 3, 1), (7, 1, 1)) if IS_GPU else ((5, 1, 2), (11, 2, 1), (1, 1, 1))
    alone, caches = [], [new_cache(model) for _ in sizes]
    rows = [rows_of(MIXTURE, sum(of), seed).to(device) for seed, of in enumerate(sizes)]
    for h, of in zip(rows, sizes, strict=True):
        cache = new_cache(model)
        alone.append([model.forward(part, cache, cache.length) for part in h.split(of)])
    parts = [h.split(of) for h, of in zip(rows, sizes, strict=True)]
    n_far = 0
    for nth in range(3):
        chunks = [Chunk(cache, len(part[nth])) for cache, part in zip(caches, parts, strict=True)]
        for chunk in chunks:
            chunk.cache.prepare(chunk.n_rows)
        got = model.forward_batch(torch.cat([part[nth] for part in parts]), chunks)
        n_far += int(far_rows(got.float().cpu(), torch.cat([of[nth] for of in alone]).float().cpu()).sum())
    assert n_far <= 3


def test_the_device_counts_what_it_routes(device: torch.device) -> None:
    model = model_of(MIXTURE, Numerics(), device)
    fed(model, rows_of(MIXTURE, 10), 9)
    shares = model.experts.heat.shares()
    assert set(shares) == {0, 1, 2}
    for of_layer in shares.values():
        assert sum(of_layer) == pytest.approx(MIXTURE.n_experts_per_tok)
        assert all(abs(share * 10 - round(share * 10)) < 1e-6 for share in of_layer)
    assert model.experts.heat.shares() == shares


class OtherStore:
    """Experts that another machine would have: applied at once."""

    def __init__(self, model: SpanModel) -> None:
        self.store = model.experts
        self.n_asked = 0

    def apply(self, layer_idx: int, x: Tensor, wanted: Mapping[int, Sequence[int]]) -> Future[Answers]:
        self.n_asked += 1
        experts = self.store.of_layer(layer_idx)
        future: Future[Answers] = Future()
        future.set_result({idx: experts[idx](x[list(rows)]) for idx, rows in wanted.items()})
        return future


def test_experts_elsewhere_and_experts_that_come(device: torch.device) -> None:
    whole = model_of(MIXTURE, Numerics(), device)
    elsewhere = OtherStore(whole)
    store = ExpertStore(MIXTURE, Numerics(), device=device)
    trunk = SpanModel(
        MIXTURE, whole.span, Numerics(), device=device, trunks=(whole.span,), experts=store, elsewhere=elsewhere
    )
    for layer_idx in trunk.span:
        trunk.load_layer(layer_idx, tensors_of(MIXTURE, layer_idx))
    h = rows_of(MIXTURE, 6)
    expected = fed(whole, h, 5)
    assert far_rows(fed(trunk, h, 5), expected).sum() <= 1
    assert elsewhere.n_asked
    for layer_idx in trunk.span:
        for expert_idx in range(MIXTURE.n_experts):
            prefix = f"feed_forward.experts.{expert_idx}."
            store.load(ExpertId(layer_idx, expert_idx), tensors_of(MIXTURE, layer_idx), prefix)
    n_asked = elsewhere.n_asked
    assert torch.equal(fed(trunk, h, 5), expected)
    assert elsewhere.n_asked == n_asked


@pytest.mark.needs_gpu
def test_replayed_steps_are_launched_steps(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, across pages, for sessions of several lengths and after the cache was cut."""
    model, launched = model_of(MIXTURE, Numerics(), device), model_of(MIXTURE, Numerics(), device)
    monkeypatch.setattr(launched._replays, "_seen", Forgetful())
    outs = []
    for each in (model, launched):
        caches = [new_cache(each) for _ in range(3)]
        got = []
        for seed, (cache, n_rows) in enumerate(zip(caches, (PAGE - 2, 30, 1), strict=True)):
            got.append(each.forward(rows_of(MIXTURE, n_rows, seed).to(device), cache, 0))
        for nth in range(12):
            h = rows_of(MIXTURE, 5, 100 + nth).to(device)
            if nth == 8:
                for cache in caches:
                    cache.truncate(cache.length - 2)
            chunks = [Chunk(cache, n) for cache, n in zip(caches, (1, 3, 1), strict=True)]
            for chunk in chunks:
                chunk.cache.prepare(chunk.n_rows)
            got.append(each.forward_batch(h, chunks))
        outs.append(torch.cat(got).cpu())
    assert len(model._replays._graphs) == 1
    assert not launched._replays._graphs
    assert torch.equal(*outs)


class Forgetful(dict[object, None]):
    def __contains__(self, key: object) -> bool:
        return False


@pytest.mark.needs_gpu
def test_graphs_are_bounded_and_follow_what_is_loaded(device: torch.device) -> None:
    model = model_of(MIXTURE, Numerics(), device)
    for n_rows in range(1, 64):
        for _ in range(3):
            model.forward(rows_of(MIXTURE, n_rows).to(device), new_cache(model), 0)
    assert 0 < len(model._replays._graphs) <= MAX_GRAPHS
    before = fed(model, rows_of(MIXTURE, 9), 0)
    other = {name: tensor.roll(1, 0) for name, tensor in tensors_of(MIXTURE, 1).items()}
    model.load_layer(1, other)
    after = fed(model, rows_of(MIXTURE, 9), 0)
    assert not torch.equal(before, after)
    fresh = model_of(MIXTURE, Numerics(), device)
    fresh.load_layer(1, other)
    assert torch.equal(after, fed(fresh, rows_of(MIXTURE, 9), 0))


@pytest.mark.needs_gpu
@pytest.mark.parametrize("is_for_good", [False, True])
def test_what_cannot_be_recorded_is_launched(
    device: torch.device, monkeypatch: pytest.MonkeyPatch, is_for_good: bool
) -> None:
    """There is no memory for it, once; or it never can be. A graph that was recorded before goes with it."""
    from node.model.ops.gpu import layer

    model, launched = model_of(DENSE, Numerics(), device), model_of(DENSE, Numerics(), device)
    monkeypatch.setattr(launched._replays, "_seen", Forgetful())
    run_layers = layer.run_layers

    def fails(layers: Sequence[layer.Layer], h: Tensor, *rest: Any) -> Tensor:
        out = run_layers(layers, h, *rest)
        if torch.cuda.is_current_stream_capturing() and h.shape[0] == 2:
            if is_for_good:
                raise RuntimeError("this driver records nothing")
            torch.empty(1 << 50, dtype=torch.uint8, device=device)
        return out

    for _ in range(3):
        model.forward(rows_of(DENSE, 1).to(device), new_cache(model), 0)
    assert len(model._replays._graphs) == 1
    h = rows_of(DENSE, 6)
    expected = launched.forward(h[:2].to(device), new_cache(launched), 0)
    with monkeypatch.context() as patch:
        patch.setattr(layer, "run_layers", fails)
        for _ in range(4):
            assert torch.equal(model.forward(h[:2].to(device), new_cache(model), 0), expected)
    assert not model._replays._graphs
    for _ in range(3):
        assert torch.equal(model.forward(h[:2].to(device), new_cache(model), 0), expected)
    assert len(model._replays._graphs) == (0 if is_for_good else 1)


def test_what_came_once_is_not_remembered_forever() -> None:
    replays = Replays()
    for n_rows in range(2 * MAX_SEEN):
        replays._see((Span(0, 2), n_rows))
    assert len(replays._seen) == MAX_SEEN
