from __future__ import annotations

import weakref
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from node.model import Numerics, fingerprint
from node.model.ops import Gate, Linear, exact, native
from node.model.ops.exact import Exact, menu_of, tiles
from node.model.ops.linear import pack
from swarm.errors import BadArgument

EXACT = Numerics(torch.bfloat16, is_exact=True)
SHAPES = [(8, 64), (192, 128), (130, 257), (2048, 64), (192, 672), (3584, 1024)]


@pytest.fixture(params=["own", "library's"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever there are."""
    absent = native.why_absent()
    if request.param == "own" and absent is not None:
        pytest.skip(absent)
    monkeypatch.setattr(native, "why_absent", lambda: None if request.param == "own" else "told so")


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize(
    "numerics",
    [Numerics(torch.float32), Numerics(), Numerics(torch.float16), EXACT],
    ids=["fp32", "bf16", "fp16", "exact"],
)
@pytest.mark.parametrize("shape", [(8, 64), (192, 128), (130, 257), (2048, 64)], ids=["router", "even", "odd", "head"])
@pytest.mark.parametrize("n_rows", [1, 2, 17, 300])
def test_every_kernel_computes_the_product(numerics: Numerics, shape: tuple[int, int], n_rows: int) -> None:
    weight, w3 = (torch.randn(2, *shape) * shape[1] ** -0.5).to(numerics.dtype)
    x, other = torch.randn(n_rows, shape[1]).to(numerics.dtype), torch.randn(n_rows, shape[0]).to(numerics.dtype)
    library = pack(weight, numerics)
    expected = x.double() @ weight.double().T
    rounding = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}[numerics.dtype]
    for got, wanted in (
        (Linear(weight, numerics)(x), expected),
        (Gate((weight, w3), numerics)(x), F.silu(expected) * (x.double() @ w3.double().T)),
        (library.silu(x), F.silu(expected)),
        (library.times(x, other), expected * other.double()),
    ):
        assert got.dtype == numerics.dtype
        assert got.shape == (n_rows, shape[0])
        torch.testing.assert_close(got.double(), wanted, atol=2 * rounding, rtol=2 * rounding)


def test_rows_of_a_batch_may_be_views_into_a_larger_one() -> None:
    weight, rows = torch.randn(256, 512), torch.randn(40, 1024)
    got = Linear(weight, Numerics(torch.float32))(rows[3:9, 100:612])
    torch.testing.assert_close(got, rows[3:9, 100:612] @ weight.T, atol=1e-4, rtol=1e-4)
    weight, rows = weight.bfloat16(), rows.bfloat16()
    linear = Linear(weight, EXACT)
    assert torch.equal(linear(rows[3:9, 100:612]), linear(rows[3:9, 100:612].contiguous()))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("slab_values", [None, 1 << 12])
def test_exact_rows_have_the_same_bits_whatever_stands_beside_them(
    shape: tuple[int, int], slab_values: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if slab_values is not None:
        monkeypatch.setattr(exact, "_SLAB_VALUES", max(slab_values, shape[0] * shape[1] // 3))
    linear = Exact((torch.randn(shape) * shape[1] ** -0.5).bfloat16())
    x, other = torch.randn(300, shape[1]).bfloat16(), torch.randn(300, shape[0]).bfloat16()
    alone = [torch.cat([f(i) for i in range(64)]) for f in (
        lambda i: linear(x[i : i + 1]),
        lambda i: linear.silu(x[i : i + 1]),
        lambda i: linear.times(x[i : i + 1], other[i : i + 1]),
    )]  # fmt: skip
    for n_rows in (2, 3, 7, 8, 16, 31, 33, 48, 64, 100, 129, 300):
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            try:
                together = linear(x[:n_rows]), linear.silu(x[:n_rows]), linear.times(x[:n_rows], other[:n_rows])
            finally:
                torch.set_num_threads(1)
            for got, expected in zip(together, alone, strict=True):
                n = min(64, n_rows)
                assert torch.equal(got[:n], expected[:n]), (n_rows, n_threads)


@given(
    st.integers(1, 2000),
    st.sampled_from([(1, 2, 4, 8, 16, 32), (2, 4, 8, 16, 32), (1, 2, 4, 8, 16, 32, 64, 128, 256), (4, 16, 256), (16,)]),
)
def test_tiles_cover_the_rows_in_sizes_of_the_menu(n_rows: int, menu: tuple[int, ...]) -> None:
    cuts = tiles(n_rows, menu)
    assert {size for _, size in cuts} <= set(menu)
    ends = [row + size for row, size in cuts]
    assert [row for row, _ in cuts] == [0, *ends[:-1]]
    assert ends[-1] >= n_rows and (len(ends) == 1 or ends[-2] < n_rows)
    if 256 not in menu or 128 in menu:
        assert ends[-1] - n_rows < 16


def test_a_menu_has_only_numbers_of_rows_that_were_seen_to_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd:
        """A library that sums one row, and more than 16, in another order than it sums others."""

        def __init__(self, weight: torch.Tensor) -> None:
            self.weight = weight.float()

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            product = x.float() @ self.weight.T
            return (product * 1.1 if len(x) == 1 or len(x) > 16 else product).bfloat16()

    monkeypatch.setattr(exact, "_kernel", Odd)
    assert menu_of.__wrapped__(24, 32, 1) == (2, 4, 8, 16)


def test_a_machine_whose_threads_change_the_bits_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Torn:
        def __init__(self, weight: torch.Tensor) -> None:
            self.weight = weight.float()

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return (x.float() @ self.weight.T * torch.get_num_threads()).bfloat16()

    monkeypatch.setattr(exact, "_kernel", Torn)
    with pytest.raises(BadArgument, match="--threads 1"):
        menu_of.__wrapped__(24, 32, 2)


def test_a_fingerprint_is_of_the_bits_that_are_computed(kernels: None, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = [(192, 128), (8, 64)]
    assert fingerprint(shapes, EXACT) == fingerprint([*reversed(shapes), shapes[0]], EXACT)
    assert fingerprint(shapes, EXACT) != fingerprint(shapes[:1], EXACT)
    assert fingerprint(shapes, EXACT) != fingerprint(shapes, Numerics(quantisation="int8", is_exact=True))
    before = fingerprint(shapes, EXACT)
    kernel = Exact if native.why_absent() else native.Bf16
    monkeypatch.setattr(kernel, "__call__", lambda self, x: torch.zeros(len(x), self._n_out, dtype=x.dtype))
    assert fingerprint(shapes, EXACT) != before


def test_the_two_of_a_gate_are_never_in_memory_together(kernels: None) -> None:
    """Whoever loads a layer has room for one of its tensors."""
    alive: list[weakref.ref[torch.Tensor]] = []

    def weights() -> Iterator[torch.Tensor]:
        for _ in range(2):
            assert all(tensor() is None for tensor in alive)
            weight = torch.randn(256, 128).bfloat16()
            alive.append(weakref.ref(weight))
            yield weight
            del weight

    Gate(weights(), EXACT)
    assert len(alive) == 2


def test_exactness_is_for_bf16() -> None:
    with pytest.raises(BadArgument, match="--profile fast"):
        Numerics(torch.float32, is_exact=True)
