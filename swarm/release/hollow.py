"""Releases of a known shape without their data: every head as it is written, every tensor a hole of its true size.

What a node would read, and hence fetch, is found by the very readers that read real releases. HF's shard boundaries are
derived, not looked up: save_pretrained fills shards of at most 5 GB (10**9) in the order of the state dict. Within a
safetensors file tensors lie in the order of their names, as the library writes those of one dtype.
Source: the models' published configs; huggingface_hub's split_torch_state_dict_into_shards; safetensors' `prepare`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from swarm.errors import BadArgument
from swarm.release import names
from swarm.release.args import STORED_DTYPES, ModelArgs
from swarm.release.hollow_zip import hollow_archive
from swarm.release.layout import ReleaseLayout
from swarm.release.ranges import ByteRange
from swarm.release.reading import drive, read_layout
from swarm.terms import ExpertId, Span

HF_SHARD_BYTES = 5 * 10**9
FUSED_FILES = 8
TOKENIZER_BYTES = 493_443  # tokenizer.model of the 8x7B torrent
HOLLOW_FORMATS = ("hf", "mistral", "mistral-fused", "mistral-pth")

_SAFETENSORS_DTYPES = {"bf16": "BF16", "fp16": "F16", "fp32": "F32"}
_MIXTRAL: dict[str, Any] = {
    "architecture": "mixtral",
    "n_kv_heads": 8,
    "head_dim": 128,
    "vocab_size": 32000,
    "norm_eps": 1e-5,
    "rope_theta": 1e6,
    "n_experts": 8,
    "n_experts_per_tok": 2,
}
KNOWN_ARGS = {
    "mixtral-8x7b": ModelArgs(dim=4096, n_layers=32, n_heads=32, hidden_dim=14336, max_positions=32768, **_MIXTRAL),
    "mixtral-8x22b": ModelArgs(dim=6144, n_layers=56, n_heads=48, hidden_dim=16384, max_positions=65536, **_MIXTRAL),
}


class HollowRelease:
    """A release of which only the heads exist. sizes: path -> bytes, as a torrent of the real one would list them."""

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        self._parts: dict[str, dict[int, bytes]] = {}

    def add(self, file: str, parts: dict[int, bytes], size_bytes: int) -> None:
        self.sizes[file] = size_bytes
        self._parts[file] = parts

    def add_json(self, file: str, value: Any) -> None:
        data = json.dumps(value, indent=2).encode()
        self.add(file, {0: data}, len(data))

    def parts(self, file: str) -> dict[int, bytes]:
        """Offset -> bytes of everything in the file that is not a hole."""
        return self._parts[file]

    def read(self, wanted: ByteRange) -> bytes:
        """The bytes of a range; what lies in a hole reads as zeros, as in a sparse file."""
        data = bytearray(wanted.size_bytes)
        for offset, part in self._parts[wanted.file].items():
            start, end = max(offset, wanted.offset), min(offset + len(part), wanted.end)
            if start < end:
                data[start - wanted.offset : end - wanted.offset] = part[start - offset : end - offset]
        return bytes(data)

    def layout(self, spans: Sequence[Span] | None = None, experts: Sequence[ExpertId] = ()) -> ReleaseLayout:
        """As a node that hosts these would read it."""
        return drive(read_layout(self.sizes, spans, experts), self.read)


def hollow_release(args: ModelArgs, format: str, *, shard_bytes: int = HF_SHARD_BYTES) -> HollowRelease:
    """A Mixtral release of these args in one of HOLLOW_FORMATS. Raises: BadArgument for any other."""
    if format not in HOLLOW_FORMATS or not args.is_moe:
        raise BadArgument(f"no layout {format!r} of a {args.architecture} model; formats: {', '.join(HOLLOW_FORMATS)}")
    release = HollowRelease()
    release.add("tokenizer.model", {}, TOKENIZER_BYTES)
    if format == "hf":
        _add_hf(release, args, shard_bytes)
        return release
    moe = {"num_experts": args.n_experts, "num_experts_per_tok": args.n_experts_per_tok}
    fields = ("dim", "n_layers", "head_dim", "hidden_dim", "n_heads", "n_kv_heads", "norm_eps", "vocab_size")
    params = {name: getattr(args, name) for name in (*fields, "rope_theta")}
    release.add_json("params.json", {**params, "max_seq_len": args.max_positions, "moe": moe})
    shapes = names.all_shapes(args)
    if format == "mistral":
        head, size = safetensors_head(shapes, args.stored_dtype, {})
        release.add("consolidated.safetensors", {0: head}, size)
    elif format == "mistral-pth":
        release.add("consolidated.00.pth", *hollow_archive(shapes, args.stored_dtype, "consolidated"))
    else:
        _add_fused(release, args)
    return release


def safetensors_head(
    shapes: Mapping[str, tuple[int, ...]], dtype: str, metadata: Mapping[str, str]
) -> tuple[bytes, int]:
    """A safetensors file's bytes before its data, and the whole file's size."""
    entries: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for name in sorted(shapes):
        end = at + math.prod(shapes[name]) * STORED_DTYPES[dtype]
        entries[name] = {"dtype": _SAFETENSORS_DTYPES[dtype], "shape": list(shapes[name]), "data_offsets": [at, end]}
        at = end
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header, 8 + len(header) + at


def hf_state_dict(args: ModelArgs) -> dict[str, tuple[int, ...]]:
    """Name -> shape in the order of transformers' Mixtral: attention, router, experts, norms of each layer."""
    found = dict(_renamed(names.embedding_shapes(args)))
    for layer_idx in range(args.n_layers):
        trunk = dict(_renamed(names.trunk_shapes(args, layer_idx)))
        norms = {name: shape for name, shape in trunk.items() if name.endswith("layernorm.weight")}
        found |= {name: shape for name, shape in trunk.items() if name not in norms}
        for expert_idx in range(args.n_experts):
            found |= _renamed(names.expert_shapes(args, layer_idx, expert_idx))
        found |= norms
    return found | dict(_renamed(names.head_shapes(args)))


def split_into_shards(shapes: Mapping[str, tuple[int, ...]], itemsize: int, shard_bytes: int) -> list[list[str]]:
    """save_pretrained's rule: tensors in their order, a new shard as soon as one would grow beyond shard_bytes."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, shape in shapes.items():
        size = math.prod(shape) * itemsize
        if shards[-1] and filled + size > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def _add_hf(release: HollowRelease, args: ModelArgs, shard_bytes: int) -> None:
    config = {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "hidden_size": args.dim,
        "num_hidden_layers": args.n_layers,
        "num_attention_heads": args.n_heads,
        "num_key_value_heads": args.n_kv_heads,
        "head_dim": args.head_dim,
        "intermediate_size": args.hidden_dim,
        "vocab_size": args.vocab_size,
        "rms_norm_eps": args.norm_eps,
        "rope_theta": args.rope_theta,
        "num_local_experts": args.n_experts,
        "num_experts_per_tok": args.n_experts_per_tok,
        "max_position_embeddings": args.max_positions,
        "tie_word_embeddings": args.tied_embeddings,
        "torch_dtype": "bfloat16",
    }
    release.add_json("config.json", config)
    shapes = hf_state_dict(args)
    shards = split_into_shards(shapes, STORED_DTYPES[args.stored_dtype], shard_bytes)
    weight_map: dict[str, str] = {}
    for i, shard in enumerate(shards):
        file = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        head, size = safetensors_head({name: shapes[name] for name in shard}, args.stored_dtype, {"format": "pt"})
        release.add(file, {0: head}, size)
        weight_map |= dict.fromkeys(shard, file)
    release.add_json("model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})


def _add_fused(release: HollowRelease, args: ModelArgs) -> None:
    """FUSED_FILES files of equal runs of layers, embeddings in the first and the head in the last."""
    n_files = min(FUSED_FILES, args.n_layers)
    for i in range(n_files):
        shapes = names.embedding_shapes(args) if i == 0 else {}
        for layer_idx in range(args.n_layers):
            if layer_idx * n_files // args.n_layers != i:
                continue
            layer = f"layers.{layer_idx}"
            for name, shape in names.trunk_shapes(args, layer_idx).items():
                shapes[name.replace(".feed_forward.gate.", ".block_sparse_moe.gate.")] = shape
            for matrix in ("w1", "w2", "w3"):
                shapes[f"{layer}.block_sparse_moe.{matrix}"] = (args.n_experts * args.hidden_dim, args.dim)
        if i == n_files - 1:
            shapes |= names.head_shapes(args)
        release.add(f"consolidated.{i:02}.pt", *hollow_archive(shapes, args.stored_dtype, f"consolidated.{i:02}"))


def _renamed(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[str, tuple[int, ...]]]:
    return ((names.hf_name(name), shape) for name, shape in shapes.items())
