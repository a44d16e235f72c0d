"""Wherever experts are, a mixture has the same bits; and a pass that waits lets another one through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future

import pytest
import torch
from torch import Tensor

from node.model import Answers, Chunk, ExpertStore, KVCache, Numerics, SpanModel
from node.model.feed_forward import FeedForward
from node.model.moe import MoE
from node.model.ops import Gate, Linear
from node.weights import PRESETS
from node.weights.synthetic import random_tensors
from swarm.errors import ExpertUnavailable, LocalProtocolError
from swarm.terms import ExpertId, Span

ARGS = PRESETS["tiny-mixtral"].args
SPAN = Span(0, ARGS.n_layers)


class Elsewhere:
    """Holds what it was asked until answer() is called; with is_prompt it answers at once."""

    def __init__(self, experts: ExpertStore, *, is_prompt: bool = False) -> None:
        self.experts = experts
        self.is_prompt = is_prompt
        self.asked: list[tuple[int, Tensor, Mapping[int, Sequence[int]], Future[Answers]]] = []

    def apply(self, layer_idx: int, x: Tensor, wanted: Mapping[int, Sequence[int]]) -> Future[Answers]:
        self.asked.append((layer_idx, x, wanted, Future()))
        future = self.asked[-1][3]
        if self.is_prompt:
            self.answer()
        return future

    def answer(self) -> None:
        layer_idx, x, wanted, future = self.asked[-1]
        experts = self.experts.of_layer(layer_idx)
        with torch.inference_mode():
            future.set_result({idx: experts[idx](x[list(rows)]) for idx, rows in wanted.items()})


def model_of(numerics: Numerics, kept: Sequence[ExpertId] | None, elsewhere: Elsewhere | None = None) -> SpanModel:
    """All of the tiny Mixtral, or its trunk with these experts."""
    trunks = () if kept is None else (SPAN,)
    model = SpanModel(ARGS, SPAN, numerics, trunks=trunks, elsewhere=elsewhere)
    tensors = dict(random_tensors(ARGS, 3))
    for layer_idx in SPAN:
        prefix = f"layers.{layer_idx}."
        mine = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        model.load_layer(layer_idx, mine)
        for expert in (expert for expert in kept or () if expert.layer_idx == layer_idx):
            model.experts.load(expert, mine, f"feed_forward.experts.{expert.expert_idx}.")
    return model


def forward(model: SpanModel, h: Tensor) -> Tensor:
    cache = KVCache(ARGS, SPAN, dtype=model.dtype, device="cpu")
    first = model.forward(h[:-1], cache, 0)
    return torch.cat((first, model.forward(h[-1:], cache, len(h) - 1)))


@pytest.mark.parametrize("numerics", [Numerics(torch.float32), Numerics(is_exact=True)], ids=["fp32", "exact bf16"])
@pytest.mark.parametrize("every", [1, 2, 3, 5])
def test_any_placement_has_the_bits_of_one_process(numerics: Numerics, every: int) -> None:
    whole = model_of(numerics, None)
    h = torch.randn(9, ARGS.dim, generator=torch.Generator().manual_seed(5)).to(numerics.dtype)
    flat = [ExpertId(layer_idx, idx) for layer_idx in SPAN for idx in range(ARGS.n_experts)]
    kept = [expert for nth, expert in enumerate(flat) if nth % every]
    elsewhere = Elsewhere(whole.experts, is_prompt=True)
    assert torch.equal(forward(model_of(numerics, kept, elsewhere), h), forward(whole, h))
    assert all(ExpertId(layer, idx) not in kept for layer, _, wanted, _ in elsewhere.asked for idx in wanted)


def test_while_one_batch_waits_another_goes_through() -> None:
    whole = model_of(Numerics(torch.float32), None)
    elsewhere = Elsewhere(whole.experts)
    model = model_of(Numerics(torch.float32), [], elsewhere)
    rows = torch.randn(2, 1, ARGS.dim, generator=torch.Generator().manual_seed(6))
    caches = [KVCache(ARGS, SPAN, dtype=torch.float32, device="cpu") for _ in rows]
    for cache in caches:
        cache.prepare(1)
    passes = [model.batch_steps(h, [Chunk(cache, 1)]) for h, cache in zip(rows, caches, strict=True)]
    waiting = [next(one) for one in passes]
    done: dict[int, Tensor] = {}
    while len(done) < 2:
        for nth, one in enumerate(passes):
            if nth in done:
                continue
            elsewhere.asked.append(next(ask for ask in elsewhere.asked if ask[3] is waiting[nth]))
            elsewhere.answer()
            try:
                waiting[nth] = next(one)
            except StopIteration as end:
                done[nth] = end.value
    for nth, h in enumerate(rows):
        cache = KVCache(ARGS, SPAN, dtype=torch.float32, device="cpu")
        assert torch.equal(done[nth], whole.forward(h, cache, 0))
    assert [cache.length for cache in caches] == [1, 1]


def test_what_kept_an_expert_from_answering_ends_the_pass_and_counts_nothing() -> None:
    elsewhere = Elsewhere(ExpertStore(ARGS, Numerics(torch.float32)))
    model = model_of(Numerics(torch.float32), [], elsewhere)
    cache = KVCache(ARGS, SPAN, dtype=torch.float32, device="cpu")
    cache.prepare(1)
    steps = model.batch_steps(torch.randn(1, ARGS.dim), [Chunk(cache, 1)])
    next(steps).set_exception(ExpertUnavailable("layer 0 expert 3 has no host"))
    with pytest.raises(ExpertUnavailable, match="layer 0 expert 3"):
        next(steps)
    assert cache.length == 0


def test_an_expert_that_is_nowhere_is_never_left_out() -> None:
    fp32 = Numerics(torch.float32)
    one = FeedForward(Gate(torch.randn(2, 24, 16), fp32), Linear(torch.randn(16, 24), fp32))
    with pytest.raises(LocalProtocolError, match="of layer 0 is not loaded"):
        MoE(Linear(torch.randn(4, 16), fp32), {0: one}, 4, 2)(torch.randn(3, 16))


def test_experts_of_a_layer_go_with_it_and_single_ones_stay() -> None:
    model = model_of(Numerics(torch.float32), [ExpertId(0, 1)])
    store = model.experts
    whole = model_of(Numerics(torch.float32), None)
    whole_store = whole.experts
    assert len(whole_store.ids) == ARGS.n_layers * ARGS.n_experts
    del model, whole
    assert store.ids == {ExpertId(0, 1)}
    assert whole_store.ids == frozenset()


def test_heat_counts_rows_and_forgets_old_ones() -> None:
    store = ExpertStore(ARGS, Numerics(torch.float32))
    for _ in range(6000):
        store.heat.count(2, 1, [(0, 1), (1, 1)])
    for _ in range(8192):
        store.heat.count(2, 1, [(1, 1), (3, 1)])
    (shares,) = store.heat.shares().values()
    assert shares[1] == 1.0
    assert shares[0] < 0.3 < 0.7 < shares[3]
    assert sum(shares) == pytest.approx(2.0)
