"""The fused Mixtral layout: consolidated.00.pt to .07.pt, in which one tensor holds a layer's w1 of all experts.

Each file is torch.save's dict of whole tensors; a layer's tensors lie in one file, four layers to a file in 8x7B.
Stored names are Mistral's, but for `layers.N.block_sparse_moe.{w1,w2,w3}` of shape (experts * hidden_dim, dim), and
`layers.N.block_sparse_moe.gate.weight`. An expert is hidden_dim rows of each: one contiguous range. Its w2 is stored
transposed. wq and wk are interleaved, whichever config goes with the files.

Source: transformers' convert_mixtral_weights_to_hf.py (the dicts are merged, nothing is concatenated; w2 is turned),
mlx-examples' first mixtral/convert.py (the same), tt-metal's repack_mixtral_weights (n_layers / 4 files).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from swarm.errors import CorruptRelease, UnsupportedArchitecture
from swarm.release import names
from swarm.release.args import STORED_DTYPES, ModelArgs
from swarm.release.configs import args_from_config, args_from_params
from swarm.release.outside import REFETCH
from swarm.release.pth import read_pth
from swarm.release.ranges import ByteRange, TensorRange

_HF_CONFIG_DEFAULTS = {"model_type": "mixtral", "max_position_embeddings": 32768}


def args_of_fused(config: Mapping[str, Any], what: str) -> ModelArgs:
    """ModelArgs from the config beside the files: params.json in Mistral's words or in HF's, or config.json.

    Raises: CorruptRelease; UnsupportedArchitecture, also for a dense model.
    """
    if "num_hidden_layers" in config:
        args = dataclasses.replace(
            args_from_config({**_HF_CONFIG_DEFAULTS, **config}, what), rope_layout="interleaved", stored_dtype="bf16"
        )
    else:
        args = args_from_params(config, what)
    if not args.is_moe:
        raise UnsupportedArchitecture(f"{what} describes a dense model, and fused .pt files hold Mixtral's experts")
    return args


def read_fused(
    shards: Sequence[str], files: Mapping[str, int], args: ModelArgs, expected: Mapping[str, object]
) -> Generator[list[ByteRange], list[bytes], dict[str, TensorRange]]:
    """Yields the ranges it wants, is sent their bytes, returns the expected tensors under canonical names.

    Files are opened in the order in which they are likely to hold the expected layers, and only until all is found.
    Raises: CorruptRelease, UnsupportedArchitecture.
    """
    stored = stored_names(args)
    wanted = {name for name, parts in stored.items() if any(part in expected for part in parts)}

    found: dict[str, TensorRange] = {}
    for shard in _likely_first(shards, args, expected):
        if all(name in found for name in expected):
            break

        def refuse_unknown(name: str, file: str = shard) -> None:
            if name not in stored and not names.is_ignorable(name, args):
                raise names.refuse_unknown(name, file)

        tensors = yield from read_pth(shard, files[shard], wanted.__contains__, refuse_unknown)
        for name, tensor in tensors.items():
            for part, part_range in _split(name, tensor, stored[name], args).items():
                if part in found:
                    raise CorruptRelease(f"{found[part].file} and {shard} both hold {name}; {REFETCH}")
                found[part] = part_range
    return found


def stored_names(args: ModelArgs) -> dict[str, tuple[str, ...]]:
    """Stored name -> the canonical tensors that it holds, in the order of their bytes."""
    stored: dict[str, tuple[str, ...]] = {}
    for name in (*names.embedding_shapes(args), *names.head_shapes(args)):
        stored[name] = (name,)
    for layer_idx in range(args.n_layers):
        layer = f"layers.{layer_idx}"
        for name in names.trunk_shapes(args, layer_idx):
            stored[name.replace(".feed_forward.gate.", ".block_sparse_moe.gate.")] = (name,)
        for matrix in ("w1", "w2", "w3"):
            stored[f"{layer}.block_sparse_moe.{matrix}"] = tuple(
                f"{layer}.feed_forward.experts.{expert_idx}.{matrix}.weight" for expert_idx in range(args.n_experts)
            )
    return stored


def _split(name: str, tensor: TensorRange, parts: Sequence[str], args: ModelArgs) -> dict[str, TensorRange]:
    """A stored tensor as the canonical ones in it. Raises: CorruptRelease for another shape than the config's."""
    if "block_sparse_moe.w" not in name:
        return {parts[0]: tensor}
    fused_shape = (args.n_experts * args.hidden_dim, args.dim)
    if tensor.shape != fused_shape:
        raise CorruptRelease(
            f"{tensor.file} holds {name} with shape {tensor.shape}, but the config makes it {fused_shape}; {REFETCH}"
        )
    is_transposed = name.endswith(".w2")
    shape = (args.dim, args.hidden_dim) if is_transposed else (args.hidden_dim, args.dim)
    step = args.hidden_dim * args.dim * STORED_DTYPES[tensor.dtype]
    return {
        part: TensorRange(tensor.file, tensor.offset + i * step, tensor.dtype, shape, is_transposed)
        for i, part in enumerate(parts)
    }


def _likely_first(shards: Sequence[str], args: ModelArgs, expected: Mapping[str, object]) -> list[str]:
    """The shards, first those where equal runs of layers put the expected ones, embeddings first and the head last."""
    likely = set()
    for name in expected:
        if name.startswith("layers."):
            likely.add(int(name.split(".")[1]) * len(shards) // args.n_layers)
        else:
            likely.add(0 if name == "tok_embeddings.weight" else len(shards) - 1)
    return [shards[i] for i in sorted(range(len(shards)), key=lambda i: (i not in likely, i))]
