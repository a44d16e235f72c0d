"""The exact profile: a row's bits depend on the tokens before it and on nothing else."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from node.model import PAGE, Chunk, KVCache, Numerics, SpanModel
from node.weights import PRESETS
from node.weights.synthetic import random_tensors
from swarm.terms import Span

N_IDS = 2 * PAGE + 60


@pytest.fixture(scope="module", params=["tiny-mixtral", "tiny-mistral", "wide-mixtral", "int8-mixtral"])
def model(request: pytest.FixtureRequest) -> SpanModel:
    """wide: matrices for which this CPU's library is known to sum many rows in another order than few."""
    wide = request.param == "wide-mixtral"
    quantisation = "int8" if request.param == "int8-mixtral" else ""
    args = PRESETS["tiny-mixtral" if wide or quantisation else request.param].args
    changes = {"n_layers": 2, "windows": args.windows[:2]} if not wide else {}
    if wide:
        changes = {"n_layers": 1, "windows": (None,), "dim": 1024, "hidden_dim": 1792, "n_heads": 8, "head_dim": 64}
    args = dataclasses.replace(args, **changes)
    tensors = dict(random_tensors(args, seed=11))
    model = SpanModel(args, Span(0, args.n_layers), Numerics(quantisation=quantisation, is_exact=True))
    for idx in model.span:
        prefix = f"layers.{idx}."
        model.load_layer(idx, {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
    model.load_embeddings(tensors["tok_embeddings.weight"])
    model.load_head(tensors["norm.weight"], tensors["output.weight"])
    return model


@pytest.fixture(scope="module")
def sequences(model: SpanModel) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randint(0, model.args.vocab_size, (N_IDS,), generator=generator) for _ in range(8)]


def new_cache(model: SpanModel) -> KVCache:
    return KVCache(model.args, model.span, dtype=model.dtype, device="cpu")


def run(model: SpanModel, ids: Tensor, chunks: Sequence[int]) -> tuple[Tensor, KVCache]:
    """Logits of every row, and the cache, of one session fed in these chunks."""
    cache, rows = new_cache(model), []
    for start, end in itertools.pairwise(itertools.accumulate(chunks, initial=0)):
        rows.append(model.logits(model.forward(model.embed(ids[start:end]), cache, start)))
    return torch.cat(rows), cache


def kv_bits(model: SpanModel, cache: KVCache) -> Tensor:
    """Every cached key and value of the last whole page, all layers."""
    pages = [cache.layer(idx) for idx in model.span]
    return torch.stack([torch.stack((kv.keys(0), kv.values(0))) for kv in pages])


@pytest.fixture(scope="module")
def alone(model: SpanModel, sequences: list[Tensor]) -> list[tuple[Tensor, KVCache]]:
    """Each sequence by itself, as a prompt in chunks of 512 and 60."""
    return [run(model, ids, [512, N_IDS - 512]) for ids in sequences]


@pytest.mark.parametrize(
    "chunks", [[16] * 35 + [12], [1] * 40 + [472, 60], [100, 1, 1, 1, 469]], ids=["16", "1", "odd"]
)
@pytest.mark.parametrize("n_threads", [1, 2])
def test_chunks_and_threads_change_no_bit(
    model: SpanModel,
    sequences: list[Tensor],
    alone: list[tuple[Tensor, KVCache]],
    chunks: list[int],
    n_threads: int,
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        logits, cache = run(model, sequences[0], chunks)
    finally:
        torch.set_num_threads(before)
    expected, expected_cache = alone[0]
    assert torch.equal(logits, expected)
    assert torch.equal(kv_bits(model, cache), kv_bits(model, expected_cache))


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_what_is_computed_beside_a_row_changes_no_bit_of_it(
    model: SpanModel, sequences: list[Tensor], alone: list[tuple[Tensor, KVCache]], data: st.DataObject
) -> None:
    n_sessions = data.draw(st.integers(2, 8))
    caches = [new_cache(model) for _ in range(n_sessions)]
    # Somewhere in their prompts, so that batches mix positions and pages.
    for cache, ids in zip(caches, sequences, strict=False):
        n_before = data.draw(st.sampled_from([0, 1, 37, 254, 256, 500]))
        if n_before:
            model.forward(model.embed(ids[:n_before]), cache, 0)
    for _ in range(3):
        sizes = [min(data.draw(st.sampled_from([1, 1, 1, 5, 60])), N_IDS - cache.length) for cache in caches]
        starts = [cache.length for cache in caches]
        batch = [(c, i, start, n) for c, i, start, n in zip(caches, sequences, starts, sizes, strict=False) if n]
        for cache, _, _, n in batch:
            cache.prepare(n)
        h = torch.cat([model.embed(ids[start : start + n]) for _, ids, start, n in batch])
        logits = model.logits(model.forward_batch(h, [Chunk(cache, n) for cache, _, _, n in batch]))
        for (_, ids, start, n), rows in zip(batch, logits.split([n for *_, n in batch]), strict=True):
            expected, _ = next(run for run, other in zip(alone, sequences, strict=True) if other is ids)
            assert torch.equal(rows, expected[start : start + n])
