"""Small releases made by hand: every byte of them is the test's own."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from swarm.release import ByteRange, ModelArgs, args_from_config, names, read_layout
from swarm.release.layout import ReleaseLayout

TINY_CONFIG: dict[str, Any] = {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "intermediate_size": 24,
    "vocab_size": 40,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e6,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 512,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}

TINY_PARAMS: dict[str, Any] = {
    "dim": 16,
    "n_layers": 3,
    "n_heads": 4,
    "n_kv_heads": 2,
    "head_dim": 6,
    "hidden_dim": 24,
    "vocab_size": 40,
    "norm_eps": 1e-5,
    "moe": {"num_experts": 4, "num_experts_per_tok": 2},
}


def hf_name(name: str) -> str:
    """Written out from the facts' table, independently of the room's own translation."""
    for ours, theirs in (
        ("layers.", "model.layers."),
        ("feed_forward.experts", "block_sparse_moe.experts"),
        ("feed_forward.gate", "block_sparse_moe.gate"),
        ("feed_forward.w1", "mlp.gate_proj"),
        ("feed_forward.w2", "mlp.down_proj"),
        ("feed_forward.w3", "mlp.up_proj"),
        ("attention_norm", "input_layernorm"),
        ("ffn_norm", "post_attention_layernorm"),
        ("attention.wq", "self_attn.q_proj"),
        ("attention.wk", "self_attn.k_proj"),
        ("attention.wv", "self_attn.v_proj"),
        ("attention.wo", "self_attn.o_proj"),
        ("tok_embeddings", "model.embed_tokens"),
        ("output.weight", "lm_head.weight"),
    ):
        name = name.replace(ours, theirs)
    return "model.norm.weight" if name == "norm.weight" else name


def safetensors_head(
    shapes: Mapping[str, tuple[int, ...]], itemsize: int = 2, dtype: str = "BF16"
) -> tuple[bytes, int]:
    """The 8 + N first bytes of a safetensors file of these tensors, and the file's whole size."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in shapes.items():
        size = itemsize
        for n in shape:
            size *= n
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header, 8 + len(header) + at


class FakeRelease:
    """A release of which only the bytes that a reader should ask for exist. sizes: of the files as torrented."""

    def __init__(self) -> None:
        self.known: dict[str, dict[int, bytes]] = {}
        self.sizes: dict[str, int] = {}
        self.asked: list[ByteRange] = []

    def add(self, file: str, data: bytes, size: int | None = None, offset: int = 0) -> None:
        self.known.setdefault(file, {})[offset] = data
        self.sizes[file] = max(self.sizes.get(file, 0), offset + len(data) if size is None else size)

    def add_json(self, file: str, value: Any) -> None:
        self.add(file, json.dumps(value).encode())

    def read(self, wanted: ByteRange) -> bytes:
        assert wanted.offset >= 0
        assert wanted.end <= self.sizes[wanted.file]
        self.asked.append(wanted)
        for offset, data in self.known[wanted.file].items():
            if offset <= wanted.offset and wanted.end <= offset + len(data):
                return data[wanted.offset - offset :][: wanted.size_bytes]
        raise AssertionError(f"asked for {wanted}, which is not a head")

    def layout(self, spans: Any = None) -> ReleaseLayout:
        reading = read_layout(self.sizes, spans)
        wanted = next(reading)
        while True:
            try:
                wanted = reading.send([self.read(byte_range) for byte_range in wanted])
            except StopIteration as done:
                layout: ReleaseLayout = done.value
                return layout


def build_hf(config: Mapping[str, Any], shard_bytes: int, index: bool = True) -> FakeRelease:
    """An HF release of empty tensors' true sizes, packed in order into shards of at most shard_bytes."""
    args: ModelArgs = args_from_config(config)
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    filled = 0
    for name, shape in names.all_shapes(args).items():
        size = 2
        for n in shape:
            size *= n
        if filled and filled + size > shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][hf_name(name)] = shape
        filled += size
    release = FakeRelease()
    release.add_json("config.json", config)
    weight_map: dict[str, str] = {}
    for i, shapes in enumerate(shards):
        file = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        head, size = safetensors_head(shapes)
        release.add(file, head, size)
        weight_map |= dict.fromkeys(shapes, file)
    if index:
        release.add_json("model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})
    return release


@pytest.fixture
def tiny_config() -> dict[str, Any]:
    return dict(TINY_CONFIG)


@pytest.fixture
def tiny_params() -> dict[str, Any]:
    return dict(TINY_PARAMS)


@pytest.fixture
def fake_release() -> FakeRelease:
    return FakeRelease()


@pytest.fixture
def hf_release() -> Callable[..., FakeRelease]:
    return build_hf


@pytest.fixture
def head_of() -> Callable[..., tuple[bytes, int]]:
    return safetensors_head


@pytest.fixture
def tiny_tensors() -> dict[str, Any]:
    """The tiny Mixtral's weights in bf16, by canonical name, each of its own values."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    torch.manual_seed(5)
    args = args_from_config(TINY_CONFIG)
    return {name: torch.randn(shape).to(torch.bfloat16) for name, shape in names.all_shapes(args).items()}


@pytest.fixture
def pth_folder(tmp_path: Path, tiny_tensors: dict[str, Any]) -> Path:
    import torch

    torch.save(tiny_tensors, tmp_path / "consolidated.00.pth")
    (tmp_path / "params.json").write_text(json.dumps(TINY_PARAMS))
    (tmp_path / "tokenizer.model").write_bytes(b"not read here")
    return tmp_path


@pytest.fixture
def hf_name_of() -> Callable[[str], str]:
    return hf_name
