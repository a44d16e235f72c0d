from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from node.model import KVCache, Numerics, SpanModel
from node.weights import PRESETS
from node.weights.synthetic import random_tensors
from node.weights.writers import to_halves
from swarm.errors import ContextLengthExceeded, LocalProtocolError, PositionMismatch
from swarm.terms import Span

Build = Callable[..., SpanModel]
NewCache = Callable[..., KVCache]

TINY = ["tiny-mistral", "tiny-mixtral", "odd-mixtral"]


def _run(model: SpanModel, cache: KVCache, ids: Tensor, chunks: list[int]) -> Tensor:
    """Logits of every row, computed chunk by chunk after what is cached."""
    rows = []
    for part in ids.split(chunks):
        rows.append(model.logits(model.forward(model.embed(part), cache, cache.length)))
    return torch.cat(rows)


def _greedy(model: SpanModel, cache: KVCache, logits: Tensor, n_tokens: int) -> list[int]:
    tokens = [int(logits[-1].argmax())]
    while len(tokens) < n_tokens:
        tokens.append(int(_run(model, cache, torch.tensor(tokens[-1:]), [1])[-1].argmax()))
    return tokens


@pytest.mark.parametrize("preset", TINY)
def test_decoding_one_by_one_is_prefilling_at_once(
    preset: str, span_model: Build, new_cache: NewCache, ids: Tensor
) -> None:
    model = span_model(preset)
    at_once = _run(model, new_cache(model), ids[:60], [60])
    one_by_one = _run(model, new_cache(model), ids[:60], [1] * 60)
    torch.testing.assert_close(one_by_one, at_once, atol=5e-5, rtol=0)


@pytest.mark.parametrize("preset", TINY)
def test_chunk_boundaries_do_not_matter(preset: str, span_model: Build, new_cache: NewCache, ids: Tensor) -> None:
    model = span_model(preset)
    whole, chunked = new_cache(model), new_cache(model)
    at_once = _run(model, whole, ids, [800])
    in_chunks = _run(model, chunked, ids, [3, 250, 1, 16, 17, 130, 255, 128])
    torch.testing.assert_close(in_chunks, at_once, atol=5e-5, rtol=0)
    assert _greedy(model, whole, at_once, 20) == _greedy(model, chunked, in_chunks, 20)


@pytest.mark.parametrize("preset", TINY)
@pytest.mark.parametrize("cuts", [(0, 1), (0, 1, 2), (0, 2)])
def test_spans_on_different_nodes_give_the_same_bits(
    preset: str, cuts: tuple[int, ...], span_model: Build, new_cache: NewCache, ids: Tensor
) -> None:
    whole = span_model(preset)
    bounds = [*cuts, whole.args.n_layers]
    parts = [span_model(preset, Span(a, b)) for a, b in itertools.pairwise(bounds)]
    caches = [new_cache(part) for part in parts]
    cache = new_cache(whole)
    for position, chunk in ((0, ids[:40]), (40, ids[40:41]), (41, ids[41:45])):
        expected = whole.logits(whole.forward(whole.embed(chunk), cache, position))
        h = parts[0].embed(chunk)
        for part, part_cache in zip(parts, caches, strict=True):
            h = part.forward(h, part_cache, position)
        assert torch.equal(parts[-1].logits(h), expected)


def test_one_node_may_run_a_part_of_its_span(span_model: Build, new_cache: NewCache, ids: Tensor) -> None:
    whole, middle = span_model("tiny-mixtral"), Span(2, 4)
    hosted = span_model("tiny-mixtral", Span(1, 6))
    h = whole.forward(whole.embed(ids[:9]), new_cache(whole, Span(0, 2)), 0)
    expected = whole.forward(h, new_cache(whole, middle), 0)
    assert torch.equal(hosted.forward(h, new_cache(hosted, middle), 0), expected)
    assert torch.equal(hosted.forward(h, new_cache(hosted), 0, middle), expected)


@pytest.mark.parametrize("preset", TINY)
def test_interleaved_sessions_do_not_see_each_other(
    preset: str, span_model: Build, new_cache: NewCache, ids: Tensor
) -> None:
    model = span_model(preset)
    first, second = ids[:50], ids[100:150]
    alone = _run(model, new_cache(model), first, [20] + [1] * 30)
    a, b = new_cache(model), new_cache(model)
    rows = [_run(model, a, first[:20], [20])]
    _run(model, b, second[:33], [33])
    for position in range(20, 50):
        rows.append(_run(model, a, first[position : position + 1], [1]))
        _run(model, b, second[position - 17 : position - 16], [1])
    assert torch.equal(torch.cat(rows), alone)


@pytest.mark.parametrize("preset", TINY)
def test_a_smaller_position_rolls_the_session_back(
    preset: str, span_model: Build, new_cache: NewCache, ids: Tensor
) -> None:
    model = span_model(preset)
    straight = _run(model, new_cache(model), ids[:40], [30] + [1] * 10)
    cache = new_cache(model)
    _run(model, cache, ids[:30], [30])
    _run(model, cache, ids[200:208], [8])  # a rejected draft
    assert cache.length == 38
    h = model.forward(model.embed(ids[30:31]), cache, 30)
    assert cache.length == 31
    rest = _run(model, cache, ids[31:40], [1] * 9)
    assert torch.equal(torch.cat([model.logits(h), rest]), straight[30:])


def test_a_window_stays_exact_long_after_its_first_keys_were_dropped(
    span_model: Build, new_cache: NewCache, ids: Tensor
) -> None:
    model = span_model("tiny-mistral", n_layers=2, windows=(12, None))
    cache = new_cache(model)
    got = _run(model, cache, ids, [5] + [1] * 795)
    assert cache.layer(0).group.start > 0
    torch.testing.assert_close(got, _run(model, new_cache(model), ids, [800]), atol=5e-5, rtol=0)


def test_a_window_hides_exactly_what_is_older(span_model: Build, new_cache: NewCache, ids: Tensor) -> None:
    model = span_model("tiny-mistral", n_layers=1, windows=(12,))
    changed = ids[:40].clone()
    changed[10] = (changed[10] + 1) % 300
    before, after = (_run(model, new_cache(model), prompt, [40]) for prompt in (ids[:40], changed))
    differs = (before != after).any(-1)
    assert differs[10:22].all()  # queries 10..21 see key 10
    assert not differs[:10].any()
    assert not differs[22:].any()


@pytest.mark.parametrize("preset", TINY)
def test_both_stored_rope_layouts_give_the_same_bits(
    preset: str, span_model: Build, new_cache: NewCache, ids: Tensor
) -> None:
    model = span_model(preset)
    args = PRESETS[preset].args
    halves = span_model(preset, rope_layout="halves")
    for layer_idx in range(args.n_layers):
        prefix = f"layers.{layer_idx}."
        tensors = dict(random_tensors(args, seed=7))
        layer = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        for name in ("attention.wq.weight", "attention.wk.weight"):
            layer[name] = to_halves(name, layer[name], args.head_dim)
        halves.load_layer(layer_idx, layer)
    expected = _run(model, new_cache(model), ids[:30], [29, 1])
    assert torch.equal(_run(halves, new_cache(halves), ids[:30], [29, 1]), expected)


def test_bf16_follows_fp32(span_model: Build, new_cache: NewCache, ids: Tensor) -> None:
    fp32, bf16 = span_model("tiny-mistral"), span_model("tiny-mistral", dtype=torch.bfloat16)
    h = bf16.forward(bf16.embed(ids[:64]), new_cache(bf16), 0)
    assert h.dtype == torch.bfloat16
    logits = bf16.logits(h)
    assert logits.dtype == torch.float32
    expected = _run(fp32, new_cache(fp32), ids[:64], [64])
    assert (logits - expected).abs().mean() < 0.05 * expected.std()


def test_layers_come_one_by_one(new_cache: NewCache) -> None:
    args = PRESETS["tiny-mixtral"].args
    model = SpanModel(args, Span(2, 4), Numerics(torch.float32))
    tensors = dict(random_tensors(args, seed=0))
    layer = {name.removeprefix("layers.2."): t for name, t in tensors.items() if name.startswith("layers.2.")}
    model.load_layer(2, layer)
    h, cache = torch.randn(3, args.dim), new_cache(model)
    model.forward(h, new_cache(model, Span(2, 3)), 0)
    with pytest.raises(LocalProtocolError, match="layer 3 is not loaded"):
        model.forward(h, cache, 0)
    assert cache.length == 0
    with pytest.raises(LocalProtocolError, match="outside of the span 2:4"):
        model.load_layer(4, layer)
    with pytest.raises(LocalProtocolError, match=r"experts\.5\.w2\.weight is missing"):
        model.load_layer(3, {name: t for name, t in layer.items() if name != "feed_forward.experts.5.w2.weight"})
    with pytest.raises(LocalProtocolError, match=r"attention\.wo\.weight has shape"):
        model.load_layer(3, layer | {"attention.wo.weight": torch.randn(64, 65)})
    with pytest.raises(LocalProtocolError, match="embeddings"):
        model.embed(torch.tensor([1]))
    with pytest.raises(LocalProtocolError, match="head"):
        model.logits(h)
    with pytest.raises(LocalProtocolError, match="ends after"):
        SpanModel(args, Span(0, 7), Numerics())


def test_steps_that_cannot_be_are_refused_before_any_work(span_model: Build, new_cache: NewCache, ids: Tensor) -> None:
    model = span_model("tiny-mistral")
    cache = new_cache(model, max_positions=10)
    h = model.embed(ids[:6])
    model.forward(h, cache, 0)
    with pytest.raises(PositionMismatch):
        model.forward(h, cache, 7)
    with pytest.raises(ContextLengthExceeded):
        model.forward(h, cache, 6)
    assert cache.length == 6
    with pytest.raises(LocalProtocolError, match="0:2"):
        model.forward(h, new_cache(model, Span(1, 4)), 0, Span(0, 2))


def test_nothing_is_left_on_the_cpu_when_another_device_is_asked_for(new_cache: NewCache) -> None:
    """torch's meta device stands in for an accelerator: it refuses operands from two devices."""
    args = PRESETS["tiny-mistral"].args
    model = SpanModel(args, Span(0, args.n_layers), Numerics(torch.float32), device="meta")
    tensors = dict(random_tensors(args, seed=0))
    for layer_idx in model.span:
        prefix = f"layers.{layer_idx}."
        model.load_layer(layer_idx, {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
    model.load_embeddings(tensors["tok_embeddings.weight"])
    model.load_head(tensors["norm.weight"], tensors["output.weight"])
    cache = new_cache(model)
    for n_rows in (40, 1, 3):
        h = model.forward(model.embed(torch.arange(n_rows)), cache, cache.length)
        assert model.logits(h).device.type == "meta"


def test_models_of_other_spans_are_made_of_the_same_weights(
    span_model: Build, new_cache: NewCache, ids: Tensor
) -> None:
    whole = span_model("tiny-mixtral")
    n_layers = whole.args.n_layers
    parts = [SpanModel(whole.args, span, whole.numerics) for span in (Span(0, 2), Span(2, n_layers))]
    for part in parts:
        part.share(whole)
    joined = SpanModel(whole.args, Span(0, n_layers), whole.numerics)
    for part in parts:
        joined.share(part)
    h = joined.forward(joined.embed(ids[:30]), new_cache(joined), 0)
    assert torch.equal(h, whole.forward(whole.embed(ids[:30]), new_cache(whole), 0))
    assert torch.equal(joined.logits(h), whole.logits(h))
    with pytest.raises(LocalProtocolError, match="embeddings"):
        parts[1].embed(ids[:1])
    with pytest.raises(LocalProtocolError, match="layer 2 is not loaded"):
        parts[0].require_loaded(Span(2, 3), Span(2, 3))
