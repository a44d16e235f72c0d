"""One model's tensors as the files of each release format."""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from swarm.errors import BadArgument
from swarm.release import ModelArgs

_HF_OUTER = {
    "tok_embeddings.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_HF_IN_LAYER = (
    (re.compile(r"attention\.w([qkvo])"), r"self_attn.\1_proj"),
    (re.compile(r"attention_norm"), "input_layernorm"),
    (re.compile(r"ffn_norm"), "post_attention_layernorm"),
    (re.compile(r"feed_forward\.(gate|experts\.\d+\.w[123])"), r"block_sparse_moe.\1"),
    (re.compile(r"feed_forward\.w1"), "mlp.gate_proj"),
    (re.compile(r"feed_forward\.w3"), "mlp.up_proj"),
    (re.compile(r"feed_forward\.w2"), "mlp.down_proj"),
)
_HF_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


def write_hf(args: ModelArgs, tensors: Mapping[str, Tensor], out_dir: Path, n_shards: int) -> None:
    """config.json and model*.safetensors; wq and wk get HF's rope layout."""
    _write_json(out_dir / "config.json", hf_config(args))
    renamed = {hf_name(name): to_halves(name, tensor, args.head_dim) for name, tensor in tensors.items()}
    _write_safetensors(renamed, out_dir, "model", n_shards)


def write_mistral(args: ModelArgs, tensors: Mapping[str, Tensor], out_dir: Path, n_shards: int) -> None:
    """params.json and consolidated*.safetensors."""
    _write_json(out_dir / "params.json", mistral_params(args))
    _write_safetensors(tensors, out_dir, "consolidated", n_shards)


def write_mistral_pth(args: ModelArgs, tensors: Mapping[str, Tensor], out_dir: Path, n_shards: int) -> None:
    """params.json and consolidated.00.pth, as in Mistral's own torrents."""
    _write_json(out_dir / "params.json", mistral_params(args))
    torch.save(OrderedDict(tensors), out_dir / "consolidated.00.pth")


WRITERS: Mapping[str, Callable[[ModelArgs, Mapping[str, Tensor], Path, int], None]] = {
    "hf": write_hf,
    "mistral": write_mistral,
    "mistral-pth": write_mistral_pth,
}


def hf_name(name: str) -> str:
    """A canonical tensor name as HF writes it."""
    if name in _HF_OUTER:
        return _HF_OUTER[name]
    prefix, layer_idx, rest = name.split(".", 2)
    stem = rest.removesuffix(".weight")
    for pattern, replacement in _HF_IN_LAYER:
        if pattern.fullmatch(stem):
            return f"model.{prefix}.{layer_idx}.{pattern.sub(replacement, stem)}.weight"
    raise BadArgument(f"{name} has no name in HF's format")


def hf_config(args: ModelArgs) -> dict[str, Any]:
    windows = set(args.windows)
    if len(windows) > 1:
        raise BadArgument("layers with different windows cannot be written in HF's format; write 'mistral'")
    config: dict[str, Any] = {
        "architectures": ["MixtralForCausalLM" if args.is_moe else "MistralForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "head_dim": args.head_dim,
        "hidden_act": "silu",
        "hidden_size": args.dim,
        "initializer_range": 0.02,
        "intermediate_size": args.hidden_dim,
        "max_position_embeddings": args.max_positions,
        "model_type": args.architecture,
        "num_attention_heads": args.n_heads,
        "num_hidden_layers": args.n_layers,
        "num_key_value_heads": args.n_kv_heads,
        "rms_norm_eps": args.norm_eps,
        "rope_theta": args.rope_theta,
        "sliding_window": windows.pop(),
        "tie_word_embeddings": args.tied_embeddings,
        "torch_dtype": _HF_DTYPES[args.stored_dtype],
        "use_cache": True,
        "vocab_size": args.vocab_size,
    }
    if args.is_moe:
        config |= {"num_local_experts": args.n_experts, "num_experts_per_tok": args.n_experts_per_tok}
    return config


def mistral_params(args: ModelArgs) -> dict[str, Any]:
    params: dict[str, Any] = {
        "dim": args.dim,
        "n_layers": args.n_layers,
        "head_dim": args.head_dim,
        "hidden_dim": args.hidden_dim,
        "n_heads": args.n_heads,
        "n_kv_heads": args.n_kv_heads,
        "norm_eps": args.norm_eps,
        "vocab_size": args.vocab_size,
        "rope_theta": args.rope_theta,
        "max_seq_len": args.max_positions,
    }
    if any(args.windows):
        params["sliding_window"] = args.windows[0] if len(set(args.windows)) == 1 else list(args.windows)
    if args.is_moe:
        params["moe"] = {"num_experts": args.n_experts, "num_experts_per_tok": args.n_experts_per_tok}
    if args.tied_embeddings:
        params["tied_embeddings"] = True
    return params


def to_halves(name: str, tensor: Tensor, head_dim: int) -> Tensor:
    """A canonical tensor as HF stores it: pair i of a head's rows lies at (i, head_dim/2 + i), not (2i, 2i + 1)."""
    if not name.endswith(("attention.wq.weight", "attention.wk.weight")):
        return tensor
    n_heads = tensor.shape[0] // head_dim
    pairs = tensor.view(n_heads, head_dim // 2, 2, -1)  # (n * hd, D) -> (n, hd/2, 2, D)
    return pairs.transpose(1, 2).reshape(tensor.shape)  # -> (n, 2, hd/2, D) -> (n * hd, D)


def _write_safetensors(tensors: Mapping[str, Tensor], out_dir: Path, stem: str, n_shards: int) -> None:
    """One file, or n_shards of about equal bytes in the tensors' order, with an index."""
    if n_shards == 1:
        save_file(dict(tensors), out_dir / f"{stem}.safetensors", metadata={"format": "pt"})
        return
    total_bytes = sum(tensor.nbytes for tensor in tensors.values())
    shards: list[dict[str, Tensor]] = [{} for _ in range(n_shards)]
    written_bytes = 0
    for name, tensor in tensors.items():
        shards[min(written_bytes * n_shards // total_bytes, n_shards - 1)][name] = tensor
        written_bytes += tensor.nbytes
    weight_map: dict[str, str] = {}
    for shard_idx, shard in enumerate(shards):
        file = f"{stem}-{shard_idx + 1:05d}-of-{n_shards:05d}.safetensors"
        save_file(shard, out_dir / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(shard, file)
    index = {"metadata": {"total_size": total_bytes}, "weight_map": dict(sorted(weight_map.items()))}
    _write_json(out_dir / f"{stem}.safetensors.index.json", index)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
