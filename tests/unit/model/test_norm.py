from __future__ import annotations

import pytest
import torch

from node.model.norm import RMSNorm


def test_it_scales_each_row_to_unit_mean_square() -> None:
    x, weight = torch.randn(5, 32), torch.randn(32)
    expected = x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * weight
    torch.testing.assert_close(RMSNorm(weight, 1e-5)(x), expected)


@pytest.mark.parametrize("scale", [1e-20, 1e15])
def test_bf16_rows_are_squared_in_fp32(scale: float) -> None:
    x = (torch.randn(2, 64) * scale).bfloat16()
    got = RMSNorm(torch.ones(64).bfloat16(), 1e-60)(x)
    assert got.dtype == torch.bfloat16
    expected = x.double() / x.double().pow(2).mean(-1, keepdim=True).sqrt()
    torch.testing.assert_close(got.double(), expected, atol=0.02, rtol=0.01)
