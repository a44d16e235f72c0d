"""Tensor names and shapes. Mistral's own names are the canonical ones; HF's are translated to them."""

from __future__ import annotations

import re

from swarm.errors import CorruptRelease, UnsupportedArchitecture
from swarm.release.args import ModelArgs
from swarm.release.outside import REFETCH, show

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,255}")
_HF_OUTER = {
    "model.embed_tokens.weight": "tok_embeddings.weight",
    "model.norm.weight": "norm.weight",
    "lm_head.weight": "output.weight",
}
_HF_IN_LAYER = {
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
    "block_sparse_moe.gate": "feed_forward.gate",
}
_HF_LAYER = re.compile(r"model\.layers\.(0|[1-9][0-9]{0,3})\.(.+)\.weight")
_HF_EXPERT = re.compile(r"block_sparse_moe\.experts\.(0|[1-9][0-9]{0,3})\.(w[123])")
_BUFFER = re.compile(r"(model\.layers\.[0-9]{1,4}\.self_attn\.rotary_emb\.inv_freq|rope\.freqs)")
_FUSED = re.compile(r"layers\.[0-9]+\.block_sparse_moe\.w[123]")


def check_name(name: object, what: str) -> str:
    """A tensor name that is safe to show, log and look up. Raises: CorruptRelease."""
    if not isinstance(name, str) or _NAME.fullmatch(name) is None or ".." in name:
        raise CorruptRelease(f"{what} holds a tensor named {show(name)}; {REFETCH}")
    return name


def canonical_name(name: str) -> str:
    """Mistral's name for an HF name; any other name, canonical ones included, as it is."""
    if name in _HF_OUTER:
        return _HF_OUTER[name]
    match = _HF_LAYER.fullmatch(name)
    if match is None:
        return name
    layer, rest = match[1], match[2]
    if rest in _HF_IN_LAYER:
        return f"layers.{layer}.{_HF_IN_LAYER[rest]}.weight"
    expert = _HF_EXPERT.fullmatch(rest)
    return f"layers.{layer}.feed_forward.experts.{expert[1]}.{expert[2]}.weight" if expert else name


def hf_name(name: str) -> str:
    """HF's name for a canonical name of ours: the inverse of canonical_name."""
    for theirs, ours in _HF_OUTER.items():
        if ours == name:
            return theirs
    _, layer, rest = name.removesuffix(".weight").split(".", 2)
    for theirs, ours in _HF_IN_LAYER.items():
        if ours == rest:
            return f"model.layers.{layer}.{theirs}.weight"
    return f"model.layers.{layer}.{rest.replace('feed_forward', 'block_sparse_moe')}.weight"


def embedding_shapes(args: ModelArgs) -> dict[str, tuple[int, ...]]:
    return {"tok_embeddings.weight": (args.vocab_size, args.dim)}


def head_shapes(args: ModelArgs) -> dict[str, tuple[int, ...]]:
    """The final norm and the projection to logits, which is the embedding table when they are tied."""
    projection = "tok_embeddings.weight" if args.tied_embeddings else "output.weight"
    return {"norm.weight": (args.dim,), projection: (args.vocab_size, args.dim)}


def trunk_shapes(args: ModelArgs, layer_idx: int) -> dict[str, tuple[int, ...]]:
    """A layer without its experts. A dense layer's feed-forward network belongs to its trunk."""
    layer = f"layers.{layer_idx}"
    shapes: dict[str, tuple[int, ...]] = {
        f"{layer}.attention_norm.weight": (args.dim,),
        f"{layer}.attention.wq.weight": (args.n_heads * args.head_dim, args.dim),
        f"{layer}.attention.wk.weight": (args.n_kv_heads * args.head_dim, args.dim),
        f"{layer}.attention.wv.weight": (args.n_kv_heads * args.head_dim, args.dim),
        f"{layer}.attention.wo.weight": (args.dim, args.n_heads * args.head_dim),
        f"{layer}.ffn_norm.weight": (args.dim,),
    }
    if args.is_moe:
        shapes[f"{layer}.feed_forward.gate.weight"] = (args.n_experts, args.dim)
    else:
        shapes |= _feed_forward_shapes(args, f"{layer}.feed_forward")
    return shapes


def expert_shapes(args: ModelArgs, layer_idx: int, expert_idx: int) -> dict[str, tuple[int, ...]]:
    return _feed_forward_shapes(args, f"layers.{layer_idx}.feed_forward.experts.{expert_idx}")


def layer_shapes(args: ModelArgs, layer_idx: int) -> dict[str, tuple[int, ...]]:
    shapes = trunk_shapes(args, layer_idx)
    for expert_idx in range(args.n_experts):
        shapes |= expert_shapes(args, layer_idx, expert_idx)
    return shapes


def all_shapes(args: ModelArgs) -> dict[str, tuple[int, ...]]:
    """Every tensor of the model by its canonical name, in the order of computation."""
    shapes = embedding_shapes(args)
    for layer_idx in range(args.n_layers):
        shapes |= layer_shapes(args, layer_idx)
    return shapes | head_shapes(args)


def _feed_forward_shapes(args: ModelArgs, prefix: str) -> dict[str, tuple[int, ...]]:
    return {
        f"{prefix}.w1.weight": (args.hidden_dim, args.dim),
        f"{prefix}.w2.weight": (args.dim, args.hidden_dim),
        f"{prefix}.w3.weight": (args.hidden_dim, args.dim),
    }


def is_ignorable(name: str, args: ModelArgs) -> bool:
    """A stored tensor that the function does not depend on: rotary buffers, and a tied model's copy of its head."""
    return _BUFFER.fullmatch(name) is not None or (args.tied_embeddings and name == "output.weight")


def refuse_unknown(name: str, file: str) -> UnsupportedArchitecture:
    if _FUSED.match(name):
        return UnsupportedArchitecture(
            f"{file} holds fused experts ({name}); use the release with one tensor per expert "
            "(consolidated.00.pth of the original torrent, or the HF shards), or with fused consolidated.NN.pt files"
        )
    return UnsupportedArchitecture(
        f"{file} holds the tensor {name}, which the config does not account for; leaving it out would change the "
        "model's answers, so this release is not run"
    )
