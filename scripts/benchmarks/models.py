"""What the engine's benches run: a Mixtral that fills memory but loads in seconds, and one layer of the real 8x7B.

Values are cut from one pool of normal numbers, each tensor from a place of its own: speed does not depend on them, and
drawing billions takes minutes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from node.weights import WRITERS
from swarm.release import ModelArgs, all_shapes

MIXTRAL_1B5 = ModelArgs(
    architecture="mixtral",
    dim=1024,
    n_layers=16,
    n_heads=16,
    n_kv_heads=4,
    head_dim=64,
    hidden_dim=3584,
    vocab_size=32000,
    norm_eps=1e-5,
    rope_theta=1e6,
    n_experts=8,
    n_experts_per_tok=2,
    max_positions=32768,
)
"""1.52e9 parameters, 0.46e9 of them active: 3 GB in bf16, of which a token of one sequence reads 0.86."""

LAYER_8X7B = replace(
    MIXTRAL_1B5,
    dim=4096,
    vocab_size=256,
    n_layers=1,
    n_heads=32,
    n_kv_heads=8,
    head_dim=128,
    hidden_dim=14336,
    windows=(None,),
    max_positions=1 << 16,
)
"""The dimensions of Mixtral 8x7B, one layer without the model's ends: 2.9 GB in bf16, of which a token reads 0.79."""

_POOL_SIZE = 1 << 26
"""More values than the largest tensor has that is ever asked for here."""


def write_model(args: ModelArgs, folder: Path, n_shards: int = 8) -> None:
    """A release in HF's format, bf16, without a tokenizer. Memory: the model."""
    folder.mkdir(parents=True, exist_ok=True)
    WRITERS["hf"](replace(args, rope_layout="halves"), dict(pooled_tensors(args)), folder, n_shards)


def pooled_tensors(args: ModelArgs, names: set[str] | None = None) -> Iterator[tuple[str, Tensor]]:
    """bf16, by canonical name, in the interleaved layout, scaled as synthetic releases are; the same at each call.

    names: only these. They share no memory.
    """
    generator = torch.Generator().manual_seed(0)
    pool = torch.randn(_POOL_SIZE, generator=generator).to(torch.bfloat16)
    for name, shape in all_shapes(args).items():
        size = math.prod(shape)
        start = int(torch.randint(max(1, _POOL_SIZE - size), (1,), generator=generator))
        if names is None or name in names:
            yield name, _scaled(name, pool[start : start + size].view(shape))


def layer_tensors(args: ModelArgs) -> dict[str, Tensor]:
    """Layer 0 alone, 'layers.0.…'. bf16."""
    return dict(pooled_tensors(args, {name for name in all_shapes(args) if name.startswith("layers.0.")}))


def prompts_of(n_sequences: int, n_tokens: int, vocab_size: int) -> list[list[int]]:
    """Prompts that differ from their second id on; always the same ones."""
    return [
        [1, *((7919 * i + 104729 * row) % (vocab_size - 3) + 3 for i in range(1, n_tokens))]
        for row in range(n_sequences)
    ]


def step_bytes(args: ModelArgs, n_cached: int = 0) -> int:
    """What one token of one sequence must read: its weights in bf16, of the embeddings one row, and its KV cache."""
    weights = args.n_active_params - (0 if args.tied_embeddings else args.vocab_size * args.dim)
    return 2 * weights + 4 * n_cached * args.n_layers * args.n_kv_heads * args.head_dim


def layer_bytes(args: ModelArgs, n_cached: int = 0) -> int:
    """What one token must read of one layer: trunk, its experts, and its KV cache, all in bf16."""
    weights = args.n_trunk_params + args.n_experts_per_tok * args.n_expert_params
    return 2 * weights + 4 * n_cached * args.n_kv_heads * args.head_dim


def _scaled(name: str, drawn: Tensor) -> Tensor:
    if name.endswith("norm.weight"):
        return 1 + 0.1 * drawn
    if name == "tok_embeddings.weight":
        return drawn * 2
    doubled = name == "output.weight" or name.endswith("gate.weight")
    return drawn * ((2 if doubled else 1) * drawn.shape[1] ** -0.5)
