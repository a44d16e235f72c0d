"""A release as a GGUF file. Runs in .venv/peers: needs gguf and numpy, no torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter

from benchmarks.gguf_names import gguf_tensors, is_rotated, stays_fp32, to_interleaved
from swarm.release import ModelArgs, ReleaseLayout, TensorRange, read_folder_layout

_STORED = {
    "bf16": (np.dtype("<u2"), GGMLQuantizationType.BF16),
    "fp16": (np.dtype("<f2"), GGMLQuantizationType.F16),
    "fp32": (np.dtype("<f4"), GGMLQuantizationType.F32),
}


def write_gguf(folder: Path, path: Path, all_fp32: bool) -> None:
    """Write the release in folder to path: values as they are stored (norms and routers in fp32), or all in fp32.

    Memory: one tensor of the GGUF at a time. Sliding windows and tokenizers are left out: prompts are ids, and shorter.
    """
    layout = read_folder_layout(folder)
    writer = GGUFWriter(path, "llama")
    _add_args(writer, layout.args)
    sources = gguf_tensors(layout.args)
    for name, parts in sources.items():
        where = layout.tensors[parts[0]]
        dtype = "fp32" if all_fp32 or stays_fp32(name) else where.dtype
        shape = where.shape if len(parts) == 1 else (len(parts), *where.shape)
        item_dtype, stored = _STORED[dtype]
        size_bytes = int(np.prod(shape)) * item_dtype.itemsize
        writer.add_tensor_info(name, shape, item_dtype, size_bytes, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, parts in sources.items():
        as_fp32 = all_fp32 or stays_fp32(name)
        arrays = [_read(folder, layout, part, as_fp32) for part in parts]
        writer.write_tensor_data(arrays[0] if len(arrays) == 1 else np.stack(arrays))
    writer.close()


def _add_args(writer: GGUFWriter, args: ModelArgs) -> None:
    writer.add_block_count(args.n_layers)
    writer.add_context_length(args.max_positions)
    writer.add_embedding_length(args.dim)
    writer.add_feed_forward_length(args.hidden_dim)
    writer.add_head_count(args.n_heads)
    writer.add_head_count_kv(args.n_kv_heads)
    writer.add_key_length(args.head_dim)
    writer.add_value_length(args.head_dim)
    writer.add_rope_dimension_count(args.head_dim)
    writer.add_rope_freq_base(args.rope_theta)
    writer.add_layer_norm_rms_eps(args.norm_eps)
    writer.add_vocab_size(args.vocab_size)
    if args.is_moe:
        writer.add_expert_count(args.n_experts)
        writer.add_expert_used_count(args.n_experts_per_tok)
    writer.add_tokenizer_model("none")


def _read(folder: Path, layout: ReleaseLayout, name: str, as_fp32: bool) -> np.ndarray:
    """bf16 comes as its bits in uint16, unless it is widened."""
    where: TensorRange = layout.tensors[name]
    item_dtype, _ = _STORED[where.dtype]
    array = np.memmap(folder / where.file, item_dtype, "r", where.offset, where.shape)
    if is_rotated(name) and layout.args.rope_layout == "halves":
        array = to_interleaved(array, layout.args.head_dim)
    if as_fp32 and where.dtype == "bf16":
        return (array.astype("<u4") << 16).view("<f4")
    return array.astype("<f4") if as_fp32 else array
