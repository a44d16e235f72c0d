"""Products on a GPU against fp32 products of the same values."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from node.model import Numerics, greatest_logits
from node.model.ops import Gate, Linear
from node.model.ops.gpu.presence import why_not_run

ROUNDING = 2e-3 if torch.cuda.is_available() else 5e-3
"""To bf16, relative to the whole: a GPU rounds to the nearest, Triton's interpreter towards zero."""

ERRORS = {"": ROUNDING, "int8": 1.5e-2, "int4": 1.6e-1}
"""What rounding to bf16, or a weight to so many bits, takes of a product of random values, relative to all of it."""


def off_by(got: Tensor, expected: Tensor) -> float:
    return float((got.float().cpu() - expected).norm() / expected.norm())


@pytest.mark.parametrize("quantisation", ERRORS, ids=["bf16", "int8", "int4"])
@pytest.mark.parametrize("n_rows", [1, 3, 17, 70 if torch.cuda.is_available() else 33])
@pytest.mark.parametrize(("n_out", "n_in"), [(48, 64), (37, 80)], ids=["even", "odd"])
def test_a_product_is_what_fp32_makes_of_it(
    device: torch.device, quantisation: str, n_rows: int, n_out: int, n_in: int
) -> None:
    weights, x = torch.randn(2, n_out, n_in).bfloat16(), torch.randn(n_rows, n_in).bfloat16()
    numerics = Numerics(quantisation=quantisation)
    one = Linear(weights[0].to(device), numerics)
    gate = Gate((weight.to(device) for weight in weights), numerics)
    assert one.own is not None
    assert gate.own is not None
    first, second = (x.float() @ weight.float().T for weight in weights)
    assert off_by(one(x.to(device)), first) < ERRORS[quantisation]
    assert off_by(gate(x.to(device)), F.silu(first) * second) < 2 * ERRORS[quantisation]


def test_they_are_tried_before_they_are_taken(device: torch.device) -> None:
    assert why_not_run(device) is None


def test_rows_do_not_leak_into_one_another(device: torch.device) -> None:
    linear = Linear(torch.randn(32, 64).bfloat16().to(device), Numerics())
    x = torch.randn(5, 64).bfloat16()
    x[2] = torch.nan
    out = linear(x.to(device)).cpu()
    assert out[2].isnan().all()
    assert out[[0, 1, 3, 4]].isfinite().all()


def test_the_largest_logit_is_found_where_the_logits_are(device: torch.device) -> None:
    logits = torch.randn(3, 20_000)
    logits[1, [17, 9_999, 19_999]] = 50.0  # of equal ones the first
    best, ids, log_sum_exps = greatest_logits(logits.to(device)).cpu().unbind(-1)
    assert torch.equal(best, logits.amax(-1))
    assert ids.long().tolist() == [int(logits[0].argmax()), 17, int(logits[2].argmax())]
    assert torch.allclose(log_sum_exps, logits.logsumexp(-1), rtol=1e-5)
