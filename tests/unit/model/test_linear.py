from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from node.model.linear import Linear


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(8, 64), (192, 128), (130, 257), (2048, 64)], ids=["router", "even", "odd", "head"])
@pytest.mark.parametrize("n_rows", [1, 2, 17, 300])
def test_every_kernel_computes_the_product(dtype: torch.dtype, shape: tuple[int, int], n_rows: int) -> None:
    weight = (torch.randn(shape) * shape[1] ** -0.5).to(dtype)
    x = torch.randn(n_rows, shape[1]).to(dtype)
    got = Linear(weight)(x)
    assert got.dtype == dtype
    assert got.shape == (n_rows, shape[0])
    rounding = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}[dtype]
    torch.testing.assert_close(got.double(), x.double() @ weight.double().T, atol=rounding, rtol=rounding)


def test_packing_bf16_changes_no_bit() -> None:
    weight, x = torch.randn(256, 512).bfloat16(), torch.randn(5, 512).bfloat16()
    assert torch.equal(Linear(weight)(x), F.linear(x, weight))


def test_rows_of_a_batch_may_be_views_into_a_larger_one() -> None:
    weight, rows = torch.randn(256, 512), torch.randn(40, 1024)
    torch.testing.assert_close(Linear(weight)(rows[3:9, 100:612]), rows[3:9, 100:612] @ weight.T, atol=1e-4, rtol=1e-4)
