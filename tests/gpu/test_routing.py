"""Which experts a row goes to on a GPU: against torch's choice, and for rows and routers that hold no numbers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from node.model import Numerics
from node.model.ops import Gate, Linear
from node.model.ops.parts import Parts

DIM = 48

TIE = 0.1
"""Of logits whose spread is about 7: bf16 rows may choose the other of two experts that are about as good."""


def routed(h: Tensor, router: Tensor, n_chosen: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """weights (T, k), chosen (T, k), order and starts, on the CPU, by a layer that consists of a router."""
    from node.model.ops.gpu.layer import Layer

    n_experts, dim = router.shape
    weight = torch.ones(dim, dim).bfloat16().to(device)
    gate, product = Gate([weight, weight], Numerics()).own, Linear(weight, Numerics()).own
    own = Linear(router.to(device), Numerics()).own
    ones = torch.ones(dim).bfloat16().to(device)
    layer = Layer(
        Parts((ones, ones), 1e-5, product, product, own, [(gate, product)] * n_experts, 1, 1, dim, n_experts, n_chosen)
    )
    torch.empty(4096, dtype=torch.int32, device=device).fill_(1 << 30)  # what memory that is taken next may hold
    _, routing = layer._route(h.to(device), own)
    return routing.weights.cpu(), routing.chosen.cpu(), routing.order.cpu(), routing.starts.cpu()


@pytest.mark.parametrize(("n_experts", "n_chosen"), [(1, 1), (6, 1), (6, 3), (17, 8), (3, 3)])
@pytest.mark.parametrize("n_rows", [1, 5])
def test_the_best_are_chosen(device: torch.device, n_experts: int, n_chosen: int, n_rows: int) -> None:
    h, router = torch.randn(n_rows, DIM).bfloat16(), torch.randn(n_experts, DIM).bfloat16()
    weights, chosen, order, starts = routed(h, router, n_chosen, device)
    logits = F.rms_norm(h.float(), (DIM,), eps=1e-5).bfloat16().float() @ router.float().T
    of_chosen = logits.gather(-1, chosen.long())
    assert (chosen.diff() > 0).all()
    assert torch.allclose(of_chosen.sort(descending=True).values, logits.topk(n_chosen).values, atol=TIE)
    assert torch.allclose(weights, of_chosen.softmax(-1), atol=TIE)
    if n_rows > 1:
        assert torch.equal(order.long(), chosen.flatten().argsort(stable=True))
        assert starts.tolist() == [0, *torch.bincount(chosen.flatten(), minlength=n_experts).cumsum(0).tolist()]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("n_rows", [1, 3])
def test_rows_that_are_no_numbers_have_experts_all_the_same(device: torch.device, value: float, n_rows: int) -> None:
    """Or what lay in memory would be read as an expert's number, and its matrix from wherever that leads."""
    h, router = torch.randn(n_rows, DIM).bfloat16(), torch.randn(6, DIM).bfloat16()
    h[0] = value
    weights, chosen, _, _ = routed(h, router, 3, device)
    assert chosen[0].unique().tolist() == chosen[0].tolist()
    assert 0 <= chosen.min() <= chosen.max() < 6
    assert weights[0].isnan().all()
    assert weights[1:].isfinite().all()


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
@pytest.mark.parametrize("n_rows", [1, 3])
def test_logits_beyond_bf16_choose_experts_all_the_same(device: torch.device, n_rows: int) -> None:
    h, router = torch.ones(n_rows, DIM).bfloat16(), torch.full((6, DIM), -3e38).bfloat16()
    _, chosen, _, _ = routed(h, router, 3, device)
    assert chosen.tolist() == [[0, 1, 2]] * n_rows
