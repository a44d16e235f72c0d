"""Our own kernels: what they compute, in which order, and what their bits depend on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from node.model import kernels
from node.model.ops import native
from node.model.ops.int8 import quantise_channels

SHAPES = [(192, 128), (130, 257), (1, 31), (513, 600)]
N_ROWS = (1, 2, 3, 15, 16, 17, 31, 32, 33, 48, 100, 511, 512)
needs_kernels = pytest.mark.skipif(native.why_absent() is not None, reason=str(native.why_absent()))


def random(n_rows: int, n_columns: int, seed: int = 0) -> Tensor:
    return torch.randn(n_rows, n_columns, generator=torch.Generator().manual_seed(seed)).bfloat16()


def packed(kind: type[native.Bf16] | type[native.Int8], *weights: Tensor) -> native.Bf16 | native.Int8:
    product = kind(weights[0].shape, len(weights))
    for nth, weight in enumerate(weights):
        product.take(weight, nth)
    return product


@needs_kernels
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bf16_products_are_rounded_once(shape: tuple[int, int]) -> None:
    w1, w3 = (random(*shape, seed) * shape[1] ** -0.5 for seed in (1, 2))
    x = random(1100, shape[1], 3)
    product, other = (x.double() @ weight.double().T for weight in (w1, w3))
    for got, expected in (
        (packed(native.Bf16, w1)(x), product),
        (packed(native.Bf16, w1, w3)(x), F.silu(product) * other),
    ):
        assert got.dtype == torch.bfloat16
        # Half a unit of bf16's last place, and what fp32 sums and their cancellations cost.
        torch.testing.assert_close(got.double(), expected, rtol=2**-8, atol=1e-5)


@needs_kernels
@pytest.mark.parametrize("n_in", [32, 50, 320])
def test_the_order_of_sums_is_the_documented_one(n_in: int) -> None:
    """32 inputs at a time: those at even places and those at odd ones by themselves, then together, then to the sum."""
    weight, x = random(48, n_in, 1), random(5, n_in, 2)
    padded = [F.pad(values, (0, -n_in % 32)).double() for values in (x, weight)]
    total = torch.zeros(5, 48)
    for start in range(0, n_in, 32):
        halves = []
        for parity in (0, 1):
            half = torch.zeros(5, 48)
            for i in range(start + parity, start + 32, 2):
                half = (padded[0][:, i, None] * padded[1][:, i] + half).float()  # fused: rounded once
            halves.append(half)
        total = total + (halves[0] + halves[1])
    assert torch.equal(packed(native.Bf16, weight)(x), total.bfloat16())


@needs_kernels
@pytest.mark.parametrize("kind", [native.Bf16, native.Int8])
@pytest.mark.parametrize("shape", [*SHAPES, (96, 4500)], ids=str)
def test_a_row_has_the_same_bits_whatever_stands_beside_it(kind: type[native.Bf16], shape: tuple[int, int]) -> None:
    weight, x = random(*shape, 1), random(1100, shape[1], 2)
    for product in (packed(kind, weight), packed(kind, weight, random(*shape, 3))):
        together = product(x)
        for n_threads in (1, 3):
            torch.set_num_threads(n_threads)
            try:
                for n_rows in N_ROWS:
                    for start in (0, 333):
                        rows = slice(start, start + n_rows)
                        assert torch.equal(product(x[rows]), together[rows]), (n_rows, start, n_threads)
            finally:
                torch.set_num_threads(1)


@needs_kernels
def test_rows_may_be_views_into_a_larger_tensor() -> None:
    weight, x = random(64, 100, 1), random(9, 301, 2)
    product = packed(native.Bf16, weight)
    for rows in (x[:, 7:107], x[2:3, 1:101], x[:, :200:2], x[:0, :100]):
        assert torch.equal(product(rows), product(rows.contiguous().clone()))


@needs_kernels
def test_int8_sums_whole_numbers_and_scales_each_sum_once() -> None:
    """The definition in 64-bit integers, at the largest sums there are."""
    weight, x = random(96, 14336, 1), random(5, 14336, 2)
    weight[0], weight[1], x[0], x[1] = 1.0, -1.0, 3.0, -3.0
    values, scales = quantise_channels(weight)
    row_scales = x.abs().amax(1, keepdim=True).float() / 127
    rows = (x.float() / row_scales).round()
    sums = rows.long() @ values.long().T
    assert sums.abs().max() == 127 * 127 * 14336
    assert torch.equal(packed(native.Int8, weight)(x), (sums.float() * scales * row_scales).bfloat16())


@needs_kernels
def test_a_gate_has_the_scales_of_both_of_its_matrices() -> None:
    w1, w3, x = random(50, 300, 1) * 2, random(50, 300, 2) / 16, random(20, 300, 3) / 8
    product, other = packed(native.Int8, w1)(x).double(), packed(native.Int8, w3)(x).double()
    expected = F.silu(product) * other
    torch.testing.assert_close(packed(native.Int8, w1, w3)(x).double(), expected, rtol=0.03, atol=1e-3)


@needs_kernels
def test_silu_is_right_for_every_value() -> None:
    one = torch.ones(1, 1).bfloat16()
    gate = packed(native.Bf16, one, one)
    every = torch.arange(-(1 << 15), 1 << 15).to(torch.int16).view(torch.bfloat16)
    every = every[every.abs() < 1e19]  # whose squares are finite
    got, x = gate(every[:, None])[:, 0].double(), every.double()
    # Below -88 e^-x is beyond fp32, and silu is zero.
    torch.testing.assert_close(got, F.silu(x) * x, rtol=2**-8 + 1e-5, atol=1e-34)


@needs_kernels
@pytest.mark.parametrize("kind", [native.Bf16, native.Int8])
def test_a_row_that_is_not_finite_stays_so_and_harms_no_other(kind: type[native.Bf16]) -> None:
    product, x = packed(kind, random(64, 128, 1)), random(4, 128, 2)
    expected = product(x)
    x[0, 5], x[2, 7] = torch.nan, torch.inf
    got = product(x)
    assert not got[[0, 2]].isfinite().any()
    assert torch.equal(got[[1, 3]], expected[[1, 3]])
    assert (product(torch.zeros(2, 128, dtype=torch.bfloat16)) == 0).all()


@needs_kernels
@pytest.mark.parametrize("n_in", [64, 1023, 4096])
def test_a_norm_is_rounded_once_and_a_rows_own(n_in: int) -> None:
    x, weight = random(300, n_in, 1) * 3, random(1, n_in, 2)[0]
    exact = x.double() / (x.double().square().mean(1, keepdim=True) + 1e-5).sqrt() * weight.double()
    together = native.normalise(x, weight, 1e-5)
    torch.testing.assert_close(together.double(), exact, rtol=2**-8, atol=1e-6)
    torch.set_num_threads(2)
    try:
        for rows in (slice(0, 1), slice(7, 40), slice(0, 300)):
            assert torch.equal(native.normalise(x[rows], weight, 1e-5), together[rows])
    finally:
        torch.set_num_threads(1)


@needs_kernels
def test_a_weight_takes_the_memory_of_its_values() -> None:
    weight = random(1024, 512)
    assert packed(native.Bf16, weight)._packed.nbytes == weight.nbytes
    assert packed(native.Int8, weight, weight)._packed.nbytes == weight.nbytes


@pytest.fixture(scope="module")
def no_compiler(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a machine that has none, and a cache without anything."""
    return {**os.environ, "PATH": "/nowhere", "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}


_MODEL_RUNS = """
import torch
from node.model import Numerics, kernels
from node.model.ops import Linear
weight, x = torch.randn(64, 96).bfloat16(), torch.randn(3, 96).bfloat16()
for numerics in (Numerics(), Numerics(is_exact=True), Numerics(quantisation="int8")):
    torch.testing.assert_close(Linear(weight, numerics)(x).float(), x.float() @ weight.float().T, atol=0.5, rtol=0.1)
print(kernels(torch.device("cpu")))
"""


def test_without_a_compiler_everything_runs_on_torch_s_own_kernels(no_compiler: dict[str, str]) -> None:
    ended = subprocess.run([sys.executable, "-c", _MODEL_RUNS], env=no_compiler, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("torch's, because ")
    if native.why_absent() is None:
        assert "none of cc, gcc, clang is installed" in ended.stdout


def test_it_is_said_which_kernels_run() -> None:
    absent = native.why_absent()
    here = "this project's own, for AMX" if absent is None else f"torch's, because {absent}"
    assert kernels(torch.device("cpu")) == here
    of_cuda = kernels(torch.device("cuda"))
    assert torch.cuda.is_available() or of_cuda.startswith("torch's, because this machine, or this build of torch, has")
