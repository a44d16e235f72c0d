"""Which tensors of a release make which tensor of a GGUF file. Pure: knows names and order, opens nothing.

llama.cpp keeps a layer's experts stacked in one tensor, and rotates the interleaved pairs (2i, 2i + 1) of a head, which
is Mistral's own layout.
"""

from __future__ import annotations

import numpy as np

from swarm.release import ModelArgs

_OUTER = {"tok_embeddings": "token_embd", "norm": "output_norm", "output": "output"}
_IN_LAYER = {
    "attention_norm": "attn_norm",
    "attention.wq": "attn_q",
    "attention.wk": "attn_k",
    "attention.wv": "attn_v",
    "attention.wo": "attn_output",
    "ffn_norm": "ffn_norm",
    "feed_forward.gate": "ffn_gate_inp",
    "feed_forward.w1": "ffn_gate",
    "feed_forward.w2": "ffn_down",
    "feed_forward.w3": "ffn_up",
}


def gguf_tensors(args: ModelArgs) -> dict[str, tuple[str, ...]]:
    """A GGUF tensor's name -> the canonical names of what it holds: one tensor, or one per expert, to be stacked."""
    outer = [name for name in _OUTER if not (name == "output" and args.tied_embeddings)]
    tensors = {f"{_OUTER[name]}.weight": (f"{name}.weight",) for name in outer}
    for layer_idx in range(args.n_layers):
        for ours, theirs in _IN_LAYER.items():
            if ours == "feed_forward.gate" and not args.is_moe:
                continue
            if ours.startswith("feed_forward.w") and args.is_moe:
                stem = ours.removeprefix("feed_forward.")
                tensors[f"blk.{layer_idx}.{theirs}_exps.weight"] = tuple(
                    f"layers.{layer_idx}.feed_forward.experts.{expert_idx}.{stem}.weight"
                    for expert_idx in range(args.n_experts)
                )
            else:
                tensors[f"blk.{layer_idx}.{theirs}.weight"] = (f"layers.{layer_idx}.{ours}.weight",)
    return tensors


def stays_fp32(name: str) -> bool:
    """Whether llama.cpp wants this GGUF tensor in fp32 whatever the rest is in: norms and routers."""
    return name.endswith(("_norm.weight", "ffn_gate_inp.weight"))


def is_rotated(name: str) -> bool:
    """Whether the order of this canonical tensor's rows depends on the rope layout."""
    return name.endswith(("attention.wq.weight", "attention.wk.weight"))


def to_interleaved(rows: np.ndarray, head_dim: int) -> np.ndarray:
    """wq or wk of the 'halves' layout with its rows in pairs (2i, 2i + 1). Shape (n * head_dim, D) stays."""
    halves = rows.reshape(-1, 2, head_dim // 2, rows.shape[1])  # (n * hd, D) -> (n, 2, hd/2, D)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)  # -> (n, hd/2, 2, D) -> (n * hd, D)
