"""int8 and int4 products: how far from the real ones, and what their bits depend on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from node.model import KVCache, Numerics, SpanModel
from node.model.ops import int4, int8, linear
from node.model.ops.int4 import Int4
from node.model.ops.int8 import Int8, quantise_channels, quantise_rows
from node.weights import PRESETS
from node.weights.synthetic import random_tensors
from swarm.errors import BadArgument
from swarm.terms import Span

KERNELS = {Int8: (127, 127), Int4: (1e9, 7.5)}
"""Steps from 0 to a row's largest value, and from 0 to the largest weight of a channel."""

SHAPES = [(192, 128), (130, 257), (100, 72), (1, 300), (513, 31)]


def random(n_rows: int, n_columns: int, seed: int = 0) -> Tensor:
    return torch.randn(n_rows, n_columns, generator=torch.Generator().manual_seed(seed)).bfloat16()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("n_rows", [1, 2, 17, 300])
def test_each_row_is_near_the_product_however_large_the_others_are(
    kernel: Callable[[Tensor], linear.Multiply], shape: tuple[int, int], n_rows: int
) -> None:
    weight, x, other = random(*shape, seed=1), random(n_rows, shape[1], seed=2), random(n_rows, shape[0], seed=3)
    x[n_rows // 2] *= 100
    x[n_rows // 3, 0] *= 30
    packed = kernel(weight)
    exact_x, exact_weight = x.double(), weight.double()
    product = exact_x @ exact_weight.T
    # A value is off by up to half a step, evenly: 0.29 steps on average. Sums of them stay within seven times that.
    row_steps, weight_steps = KERNELS[kernel]
    bound = 2 * (
        exact_x.abs().amax(1, keepdim=True) / row_steps * exact_weight.norm(dim=1)
        + exact_weight.abs().amax(1) / weight_steps * exact_x.norm(dim=1, keepdim=True)
    )
    for got, expected, slope in (
        (packed(x), product, 1.0),
        (packed.silu(x), F.silu(product), 1.1),
        (packed.times(x, other), product * other.double(), other.double().abs()),
    ):
        assert got.dtype == torch.bfloat16
        assert got.shape == expected.shape
        assert ((got.double() - expected).abs() <= bound * slope + expected.abs() / 64).all()


def test_int8_sums_whole_numbers_and_scales_each_sum_once() -> None:
    """The definition in 64-bit integers, at the largest sums there are."""
    weight, x = random(96, 14336, seed=1), random(5, 14336, seed=2)
    weight[0] = 1.0
    weight[1] = -1.0
    x[0] = 3.0
    x[1] = -3.0
    rows, row_scales = quantise_rows(x)
    values, scales = quantise_channels(weight)
    assert (rows[0].min(), rows[1].max(), values[0].min(), values[1].max()) == (127, -127, 127, -127)
    sums = rows.long() @ values.long().T
    assert sums.abs().max() == 127 * 127 * 14336
    assert torch.equal(Int8(weight)(x), (sums.float() * scales).bfloat16() * row_scales)


@pytest.mark.parametrize("shape", [(192, 128), (130, 257), (1024, 512)], ids=str)
def test_an_int8_row_has_the_same_bits_whatever_stands_beside_it(shape: tuple[int, int]) -> None:
    weight, x, other = random(*shape, seed=1), random(512, shape[1], seed=2), random(512, shape[0], seed=3)
    packed = Int8(weight)
    together = packed(x), packed.silu(x), packed.times(x, other)
    for n_threads in (1, 2):
        torch.set_num_threads(n_threads)
        try:
            for n_rows in (1, 2, 7, 8, 33, 512):
                for start in (0, 300):
                    rows = slice(start, start + n_rows)
                    alone = packed(x[rows]), packed.silu(x[rows]), packed.times(x[rows], other[rows])
                    for got, expected in zip(alone, together, strict=True):
                        assert torch.equal(got, expected[rows]), (n_rows, start, n_threads)
        finally:
            torch.set_num_threads(1)


def test_a_row_that_is_not_finite_stays_so_and_harms_no_other() -> None:
    packed, x = Int8(random(64, 128, seed=1)), random(4, 128, seed=2)
    expected = packed(x)
    x[0, 5], x[2, 7] = torch.nan, torch.inf
    got = packed(x)
    assert not got[[0, 2]].isfinite().any()
    assert torch.equal(got[[1, 3]], expected[[1, 3]])
    assert torch.equal(packed(torch.zeros(2, 128, dtype=torch.bfloat16)), torch.zeros(2, 64, dtype=torch.bfloat16))


def test_silu_has_the_same_bits_in_a_vector_and_alone() -> None:
    """All bf16 values: torch computes what is left over of a row, after whole vectors, in another way."""
    every = torch.arange(-(1 << 15), 1 << 15).to(torch.int16).view(torch.bfloat16)
    in_vectors = F.silu(every)
    alone = torch.cat([F.silu(value) for value in every.split(1)])
    assert torch.equal(in_vectors.isnan(), alone.isnan())
    assert torch.equal(in_vectors.nan_to_num(), alone.nan_to_num())


_ELSEWHERE = """
import sys, torch
from node.model.ops import int8
from swarm.errors import BadArgument
int8._has_amx = lambda: False
try:
    int8.require_int8()
except BadArgument as error:
    sys.exit(error.message)
weight, x = torch.load(sys.argv[1])
torch.save(int8.Int8(weight)(x), sys.argv[1])
"""


@pytest.mark.parametrize("instructions", ["AVX512_CORE", "AVX512_CORE_VNNI"])
def test_other_instructions_give_the_same_bits_or_refuse(instructions: str, tmp_path: Path) -> None:
    """AVX512 without VNNI adds pairs of products in 16 bits, which saturate: a CPU like that must say so."""
    weight, x = random(256, 14336, seed=1), random(13, 14336, seed=2)
    weight[7] = weight[7].abs()
    torch.save((weight, x), tmp_path / "tensors")
    there = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE, tmp_path / "tensors"],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": instructions},
        capture_output=True,
        text=True,
    )
    if there.returncode and (instructions == "AVX512_CORE" or not torch.cpu._is_vnni_supported()):
        assert "leave --quantize away" in there.stderr
    else:
        assert there.returncode == 0, there.stderr
        assert torch.equal(torch.load(tmp_path / "tensors"), Int8(weight)(x))


def test_a_cpu_whose_sums_saturate_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = int8._multiply
    monkeypatch.setattr(int8, "_multiply", lambda *args: real(*args).clamp(-(1 << 25), 1 << 25))
    with pytest.raises(BadArgument, match="leave --quantize away"):
        int8.require_int8.__wrapped__()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_int4_unpacked_for_many_rows_is_what_its_kernel_multiplies_by(
    shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, x = Int4(random(*shape, seed=1)), random(300, shape[1], seed=2)
    if not int4._knows_layout():
        pytest.skip("this CPU packs int4 in another way: many rows go through the kernel too")
    by_parts = packed(x).double()
    monkeypatch.setattr(int4, "_knows_layout", lambda: False)
    by_kernel = packed(x).double()
    assert not torch.equal(by_parts, by_kernel)  # another order of sums: both ways were taken
    assert (by_parts - by_kernel).norm() < 0.004 * by_kernel.norm()


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": torch.float32, "quantisation": "int8"},
        {"quantisation": "int4", "is_exact": True},
        {"quantisation": "int3"},
    ],
    ids=str,
)
def test_numerics_that_cannot_be_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(BadArgument):
        Numerics(**options)  # type: ignore[arg-type]


def load(preset: str, span: Span, numerics: Numerics) -> SpanModel:
    args = PRESETS[preset].args
    tensors = dict(random_tensors(args, seed=7))
    model = SpanModel(args, span, numerics)
    for idx in span:
        prefix = f"layers.{idx}."
        model.load_layer(idx, {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
    model.load_embeddings(tensors["tok_embeddings.weight"])
    model.load_head(tensors["norm.weight"], tensors.get("output.weight", tensors["tok_embeddings.weight"]))
    return model


def generate(models: list[SpanModel], prompt: Tensor, n_tokens: int) -> tuple[list[int], Tensor]:
    """Greedy ids over a chain of models, and the logits that they were taken from."""
    caches = [KVCache(m.args, m.span, dtype=m.dtype, device=m.device) for m in models]
    ids, logits, chunk, position = [], [], prompt, 0
    for _ in range(n_tokens):
        h = models[0].embed(chunk)
        for model, cache in zip(models, caches, strict=True):
            h = model.forward(h, cache, position)
        logits.append(models[-1].logits(h[-1:]))
        position += len(chunk)
        ids.append(int(logits[-1].argmax()))
        chunk = torch.tensor(ids[-1:])
    return ids, torch.cat(logits)


@pytest.mark.parametrize("preset", ["tiny-mixtral", "odd-mixtral"])
@pytest.mark.parametrize("quantisation", ["int8", "int4"])
def test_a_quantised_model_follows_fp32_and_splits_change_no_bit(preset: str, quantisation: str, ids: Tensor) -> None:
    n_layers = PRESETS[preset].args.n_layers
    numerics = Numerics(quantisation=quantisation)
    whole = load(preset, Span(0, n_layers), numerics)
    expected_ids, logits = generate([whole], ids[:40], 12)
    parts = [load(preset, span, numerics) for span in (Span(0, 2), Span(2, n_layers))]
    got_ids, got = generate(parts, ids[:40], 12)
    assert got_ids == expected_ids
    assert torch.equal(got, logits)
    fp32 = generate([load(preset, Span(0, n_layers), Numerics(torch.float32))], ids[:40], 1)[1]
    assert (logits[:1] - fp32).abs().mean() < {"int8": 0.1, "int4": 0.6}[quantisation] * fp32.std()


def test_the_head_is_not_quantised(ids: Tensor) -> None:
    span = Span(0, PRESETS["tiny-mixtral"].args.n_layers)
    bf16, quantised = (load("tiny-mixtral", span, Numerics(quantisation=name)) for name in ("", "int8"))
    h = bf16.embed(ids[:5])
    assert torch.equal(quantised.embed(ids[:5]), h)
    assert torch.equal(quantised.logits(h), bf16.logits(h))
