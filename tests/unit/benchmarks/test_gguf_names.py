"""What llama.cpp is given as a peer's weights: every tensor once, experts in order, rotary rows as it rotates them."""

from __future__ import annotations

import pytest
import torch
from benchmarks.gguf_names import gguf_tensors, is_rotated, to_interleaved

from node.weights import PRESETS
from node.weights.writers import to_halves
from swarm.release import all_shapes


@pytest.mark.parametrize("preset", ["tiny-mistral", "tiny-mixtral", "odd-mixtral"])
def test_every_tensor_is_held_once(preset: str) -> None:
    args = PRESETS[preset].args
    tensors = gguf_tensors(args)
    held = [part for parts in tensors.values() for part in parts]
    assert len(held) == len(set(held))
    assert set(held) == set(all_shapes(args))


def test_experts_are_stacked_in_their_order() -> None:
    tensors = gguf_tensors(PRESETS["tiny-mixtral"].args)
    for theirs, ours in (("gate", "w1"), ("up", "w3"), ("down", "w2")):
        expected = tuple(f"layers.5.feed_forward.experts.{expert_idx}.{ours}.weight" for expert_idx in range(8))
        assert tensors[f"blk.5.ffn_{theirs}_exps.weight"] == expected


@pytest.mark.parametrize("preset", ["tiny-mistral", "odd-mixtral"])
def test_rotary_rows_come_back_from_halves(preset: str) -> None:
    args = PRESETS[preset].args
    rotated = [name for name in all_shapes(args) if is_rotated(name)]
    assert len(rotated) == 2 * args.n_layers
    for name in rotated:
        canonical = torch.randn(all_shapes(args)[name], generator=torch.Generator().manual_seed(1))
        stored = to_halves(name, canonical, args.head_dim)
        assert not torch.equal(stored, canonical)
        assert (to_interleaved(stored.numpy(), args.head_dim) == canonical.numpy()).all()
