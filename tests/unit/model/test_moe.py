from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from node.model.feed_forward import FeedForward
from node.model.moe import MoE
from node.model.ops import Gate, Linear, Numerics

DIM, HIDDEN_DIM = 16, 24
FP32 = Numerics(torch.float32)


def _moe(n_experts: int, k: int) -> MoE:
    def linear(out: int, into: int) -> Linear:
        return Linear(torch.randn(out, into) * into**-0.5, FP32)

    def expert() -> FeedForward:
        return FeedForward(Gate(torch.randn(2, HIDDEN_DIM, DIM) * DIM**-0.5, FP32), linear(DIM, HIDDEN_DIM))

    experts = [expert() for _ in range(n_experts)]
    return MoE(linear(n_experts, DIM), dict(enumerate(experts)), n_experts, k)


def _reference(moe: MoE, x: Tensor) -> Tensor:
    """transformers' order: softmax over all experts, the k largest, renormalised."""
    out = torch.zeros_like(x)
    for row in range(x.shape[0]):
        probabilities = moe.gate(x[row : row + 1])[0].softmax(0)
        top, chosen = probabilities.topk(moe.n_experts_per_tok)
        for weight, expert_idx in zip(top / top.sum(), chosen.tolist(), strict=True):
            out[row] += weight * moe.experts[expert_idx](x[row : row + 1])[0]
    return out


@pytest.mark.parametrize(("n_experts", "k"), [(8, 2), (6, 3), (4, 1), (3, 3)])
@pytest.mark.parametrize("n_rows", [1, 2, 33])
def test_it_mixes_the_k_best_experts(n_experts: int, k: int, n_rows: int) -> None:
    torch.manual_seed(n_rows)
    moe, x = _moe(n_experts, k), torch.randn(n_rows, DIM)
    torch.testing.assert_close(moe(x), _reference(moe, x), atol=1e-5, rtol=1e-5)


def test_a_rows_weights_add_up_to_one_and_follow_its_logits() -> None:
    moe, x = _moe(8, 2), torch.randn(10, DIM)
    weights, chosen = moe.route(x)
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights.sum(-1), torch.ones(10))
    assert torch.equal(chosen, moe.gate(x).topk(2).indices.sort(-1).values)
    logits = moe.gate(x).gather(-1, chosen)
    torch.testing.assert_close(weights, logits.softmax(-1))


def test_bf16_experts_are_summed_in_fp32() -> None:
    # 256 + 1 + 1 is 258 in fp32 and in bf16; adding one by one in bf16 stays at 256.
    def expert(value: float) -> FeedForward:
        w2 = torch.zeros(DIM, 1).bfloat16() + value
        w13 = torch.zeros(2, 1, DIM).bfloat16()
        w13[0, 0, 0], w13[1, 0, 0] = 1, 1 / 4096
        return FeedForward(Gate(w13, Numerics()), Linear(w2, Numerics()))

    moe = MoE(Linear(torch.zeros(3, DIM).bfloat16(), Numerics()), dict(enumerate(map(expert, (768, 3, 3)))), 3, 3)
    x = torch.zeros(4, DIM).bfloat16()
    x[:, 0] = 64  # silu(64) * (64 / 4096) is 1, so that each expert answers its value
    for n_rows in (1, 4):
        mixed = moe(x[:n_rows])
        assert mixed.dtype == torch.bfloat16
        assert (mixed == 258).all()


def test_feed_forward_is_swiglu() -> None:
    w1, w3 = torch.randn(2, HIDDEN_DIM, DIM)
    w2 = torch.randn(DIM, HIDDEN_DIM)
    x = torch.randn(4, DIM)
    got = FeedForward(Gate((w1, w3), FP32), Linear(w2, FP32))(x)
    torch.testing.assert_close(got, (F.silu(x @ w1.T) * (x @ w3.T)) @ w2.T)
