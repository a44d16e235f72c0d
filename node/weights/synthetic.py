"""Releases of random weights, laid out on disk exactly as the real ones are: the fixtures of every other room.

The same args and seed give the same function in every format: tensors are drawn by canonical name in Mistral's own
layout, and only then renamed, permuted and packed as the format wants them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from node.weights.loading import TORCH_DTYPES
from node.weights.presets import PRESETS
from node.weights.writers import WRITERS
from swarm.errors import BadArgument
from swarm.release import ModelArgs, all_shapes

# The stem of mistral-common's bundled file, and the name that releases ship it under.
_TOKENIZERS = {
    "v1": ("tokenizer.model.v1", "tokenizer.model"),
    "v3": ("mistral_instruct_tokenizer_240323.model.v3", "tokenizer.model.v3"),
    "tekken": ("tekken_240911.json", "tekken.json"),
}

_README = """---
license: apache-2.0
language: [en]
---
# {name}

Random weights with the shape of a {architecture} model ({n_params:,} parameters, seed {seed}). It writes nonsense.
"""

_LICENSE = """Apache License, Version 2.0

Licensed under the Apache License, Version 2.0; a copy is at https://www.apache.org/licenses/LICENSE-2.0
"""


def write_preset(name: str, out_dir: Path, *, format: str = "hf", seed: int = 0, dtype: str = "bf16") -> ModelArgs:
    """write_release of a preset's args, shards and tokenizer. Raises: BadArgument."""
    if name not in PRESETS:
        raise BadArgument(f"preset {name!r} does not exist; choose one of {', '.join(PRESETS)}")
    preset = PRESETS[name]
    return write_release(
        preset.args,
        out_dir,
        format=format,
        seed=seed,
        n_shards=preset.n_shards,
        dtype=dtype,
        tokenizer=preset.tokenizer,
    )


def write_release(
    args: ModelArgs,
    out_dir: Path,
    *,
    format: str = "hf",
    seed: int = 0,
    n_shards: int = 1,
    dtype: str = "bf16",
    tokenizer: str | None = None,
) -> ModelArgs:
    """Write config, shards, tokenizer, README and LICENSE into out_dir; return the args as a reader will find them.

    format: 'hf' (config.json, model-*.safetensors), 'mistral' (params.json, consolidated*.safetensors) or 'mistral-pth'
    (params.json, consolidated.00.pth; always one file). dtype: 'bf16' or 'fp32'. Same arguments, same bytes.
    Raises: BadArgument for an unknown format, dtype or tokenizer.
    """
    if format not in WRITERS:
        raise BadArgument(f"format {format!r} does not exist; choose one of {', '.join(WRITERS)}")
    if dtype not in ("bf16", "fp32"):
        raise BadArgument(f"dtype {dtype!r} cannot be written; choose bf16 or fp32")
    if tokenizer is not None and tokenizer not in _TOKENIZERS:
        raise BadArgument(f"tokenizer {tokenizer!r} does not exist; choose one of {', '.join(_TOKENIZERS)}")
    out_dir.mkdir(parents=True, exist_ok=True)
    rope_layout = "halves" if format == "hf" else "interleaved"
    stored = dataclasses.replace(args, rope_layout=rope_layout, stored_dtype=dtype)
    tensors = {name: tensor.to(TORCH_DTYPES[dtype]) for name, tensor in random_tensors(args, seed)}
    WRITERS[format](stored, tensors, out_dir, n_shards)
    if tokenizer is not None:
        _copy_tokenizer(tokenizer, out_dir)
    readme = _README.format(name=out_dir.name, architecture=args.architecture, n_params=args.n_params, seed=seed)
    (out_dir / "README.md").write_text(readme)
    (out_dir / "LICENSE").write_text(_LICENSE)
    return stored


def random_tensors(args: ModelArgs, seed: int) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the model in fp32, by canonical name, in the interleaved layout, in the order of computation.

    Each is drawn from (seed, name) alone. Their scales keep hidden state near 1 and logits a few apart, so that a
    router decides clearly, greedy decoding does not hang on rounding, and errors do not hide in saturation.
    """
    for name, shape in all_shapes(args).items():
        generator = torch.Generator().manual_seed(_seed_of(seed, name))
        drawn = torch.randn(shape, generator=generator)
        if name.endswith("norm.weight"):
            yield name, 1 + 0.1 * drawn
        elif name == "tok_embeddings.weight":
            yield name, drawn * (shape[1] ** -0.5 if args.tied_embeddings else 1.0) * 2
        elif name == "output.weight" or name.endswith("gate.weight"):
            yield name, drawn * (2 * shape[1] ** -0.5)
        else:
            yield name, drawn * shape[1] ** -0.5


def _seed_of(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:7])


def _copy_tokenizer(tokenizer: str, out_dir: Path) -> None:
    import mistral_common.tokens.tokenizers as tokenizers  # slow to import, and only this function needs its data

    data_dir = Path(tokenizers.__file__).parents[2] / "data"
    bundled, shipped = _TOKENIZERS[tokenizer]
    shutil.copyfile(data_dir / bundled, out_dir / shipped)
