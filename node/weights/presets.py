"""Synthetic models by name: small enough for a test or a demo, odd enough to catch what equal numbers would hide."""

from __future__ import annotations

from dataclasses import dataclass

from swarm.release import ModelArgs


@dataclass(frozen=True, slots=True)
class Preset:
    """tokenizer: 'v1', 'v3', 'tekken' or None (no tokenizer file; prompts are ids)."""

    args: ModelArgs
    n_shards: int
    tokenizer: str | None


PRESETS: dict[str, Preset] = {
    # A window shorter than any prompt worth testing, and three query heads to a KV head.
    "tiny-mistral": Preset(
        ModelArgs(
            architecture="mistral",
            dim=64,
            n_layers=6,
            n_heads=6,
            n_kv_heads=2,
            head_dim=16,
            hidden_dim=160,
            vocab_size=512,
            norm_eps=1e-5,
            rope_theta=1e4,
            windows=(12,) * 6,
            max_positions=4096,
        ),
        n_shards=1,
        tokenizer=None,
    ),
    "tiny-mixtral": Preset(
        ModelArgs(
            architecture="mixtral",
            dim=64,
            n_layers=6,
            n_heads=4,
            n_kv_heads=2,
            head_dim=16,
            hidden_dim=96,
            vocab_size=512,
            norm_eps=1e-5,
            rope_theta=1e6,
            n_experts=8,
            n_experts_per_tok=2,
            max_positions=4096,
        ),
        n_shards=3,
        tokenizer=None,
    ),
    # head_dim is not dim / n_heads, nothing is a power of two, and the head is the embedding table.
    "odd-mixtral": Preset(
        ModelArgs(
            architecture="mixtral",
            dim=72,
            n_layers=3,
            n_heads=5,
            n_kv_heads=1,
            head_dim=22,
            hidden_dim=100,
            vocab_size=300,
            norm_eps=1e-6,
            rope_theta=1e6,
            n_experts=6,
            n_experts_per_tok=3,
            tied_embeddings=True,
            max_positions=1024,
        ),
        n_shards=2,
        tokenizer=None,
    ),
    # What flows and benches run where size matters: ~112 MB in bf16, with a real tokenizer.
    "demo": Preset(
        ModelArgs(
            architecture="mixtral",
            dim=256,
            n_layers=12,
            n_heads=8,
            n_kv_heads=4,
            head_dim=32,
            hidden_dim=512,
            vocab_size=32768,
            norm_eps=1e-5,
            rope_theta=1e6,
            n_experts=8,
            n_experts_per_tok=2,
            max_positions=8192,
        ),
        n_shards=5,
        tokenizer="v3",
    ),
    # As many layers as a mid-sized model, evenly over four shards: for selective fetching. ~128 MB in bf16.
    "24-layer": Preset(
        ModelArgs(
            architecture="mixtral",
            dim=256,
            n_layers=24,
            n_heads=8,
            n_kv_heads=2,
            head_dim=32,
            hidden_dim=416,
            vocab_size=1024,
            norm_eps=1e-5,
            rope_theta=1e6,
            n_experts=8,
            n_experts_per_tok=2,
            max_positions=4096,
        ),
        n_shards=4,
        tokenizer=None,
    ),
}
