"""What the embedded release is: its model's numbers, and how trained parameters become the files that ship."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from node.model.rope import halves_to_interleaved
from node.weights import WRITERS
from swarm.release import ModelArgs, all_shapes

ARGS = ModelArgs(
    architecture="mixtral",
    dim=192,
    n_layers=6,
    n_heads=6,
    n_kv_heads=2,
    head_dim=32,
    hidden_dim=368,
    vocab_size=2048,
    norm_eps=1e-5,
    rope_theta=1e4,
    n_experts=8,
    n_experts_per_tok=2,
    max_positions=1024,
)
"""11.6 million parameters, 23.1 MB in bf16: as much as fits beside the tokenizer in 24 MB."""

N_SHARDS = 3
NAME = "pip-12m"


def write_releases(parameters: Mapping[str, Tensor], tokenizer: Path, texts: Mapping[str, str], out_dir: Path) -> None:
    """out_dir/hf and out_dir/mistral: the same model in both layouts, each with the tokenizer and `texts` by name."""
    tensors = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in canonical_tensors(ARGS, parameters)}
    if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != dict(all_shapes(ARGS)):
        raise ValueError("the trained parameters are not those of this model")
    for format, rope_layout in (("hf", "halves"), ("mistral", "interleaved")):
        folder = out_dir / format / NAME
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        stored = dataclasses.replace(ARGS, rope_layout=rope_layout, stored_dtype="bf16")
        WRITERS[format](stored, tensors, folder, N_SHARDS if format == "hf" else 1)
        shutil.copyfile(tokenizer, folder / "tekken.json")
        for name, text in texts.items():
            (folder / name).write_text(text)


def canonical_tensors(args: ModelArgs, parameters: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Trained parameters under Mistral's own names and in its rotary layout, in the order of computation."""
    yield "tok_embeddings.weight", parameters["embedding"]
    for n in range(args.n_layers):
        yield f"layers.{n}.attention_norm.weight", parameters[f"{n}.attention_norm"]
        for letter in "qkvo":
            weight = parameters[f"{n}.w{letter}"]
            yield (
                f"layers.{n}.attention.w{letter}.weight",
                (halves_to_interleaved(weight, args.head_dim) if letter in "qk" else weight),
            )
        yield f"layers.{n}.ffn_norm.weight", parameters[f"{n}.ffn_norm"]
        yield f"layers.{n}.feed_forward.gate.weight", parameters[f"{n}.gate"]
        for e in range(args.n_experts):
            stem = f"layers.{n}.feed_forward.experts.{e}"
            yield f"{stem}.w1.weight", parameters[f"{n}.w13"][e, 0]
            yield f"{stem}.w2.weight", parameters[f"{n}.w2"][e]
            yield f"{stem}.w3.weight", parameters[f"{n}.w13"][e, 1]
    yield "norm.weight", parameters["norm"]
    yield "output.weight", parameters["output"]
