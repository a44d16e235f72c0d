from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import torch

from node.model import KVCache, Numerics, SpanModel
from node.weights import PRESETS, load_tensors, write_preset, write_release
from swarm.errors import BadArgument
from swarm.release import read_folder_layout
from swarm.terms import Span

FORMATS = ["hf", "mistral", "mistral-pth"]
TINY = ["tiny-mistral", "tiny-mixtral", "odd-mixtral"]


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def _logits(folder: Path) -> torch.Tensor:
    layout = read_folder_layout(folder)
    model = SpanModel(layout.args, Span(0, layout.args.n_layers), Numerics(torch.float32))
    tensors = load_tensors(layout.tensors, folder, dtype=torch.float32)
    for layer_idx in model.span:
        prefix = f"layers.{layer_idx}."
        layer = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        model.load_layer(layer_idx, layer)
    model.load_embeddings(tensors["tok_embeddings.weight"])
    model.load_head(tensors["norm.weight"], tensors.get("output.weight", tensors["tok_embeddings.weight"]))
    cache = KVCache(model.args, model.span, dtype=model.dtype, device="cpu")
    return model.logits(model.forward(model.embed(torch.arange(40)), cache, 0))


@pytest.mark.parametrize("preset", TINY)
def test_every_format_is_the_same_function(preset: str, tmp_path: Path) -> None:
    for format in FORMATS:
        write_preset(preset, tmp_path / format, format=format)
    expected = _logits(tmp_path / "hf")
    assert torch.equal(_logits(tmp_path / "mistral"), expected)
    assert torch.equal(_logits(tmp_path / "mistral-pth"), expected)


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(format: str, tmp_path: Path) -> None:
    folders = [tmp_path / run / "release" for run in ("first", "again", "other")]
    for folder, seed in zip(folders, (1, 1, 2), strict=True):
        write_preset("tiny-mixtral", folder, format=format, seed=seed)
    first, again, other = map(_digests, folders)
    assert first == again
    same = {name for name in first if first[name] == other[name]}
    assert not any(name.endswith((".safetensors", ".pth")) for name in same)
    assert "LICENSE" in same


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("preset", TINY)
def test_a_reader_finds_the_args_that_the_writer_returned(preset: str, format: str, tmp_path: Path) -> None:
    written = write_preset(preset, tmp_path, format=format)
    assert read_folder_layout(tmp_path).args == written


def test_mixed_windows_are_written_in_mistrals_format_only(tmp_path: Path) -> None:
    args = dataclasses.replace(PRESETS["tiny-mistral"].args, n_layers=4, windows=(None, 8, None, 8))
    write_release(args, tmp_path / "mistral", format="mistral", dtype="fp32")
    assert read_folder_layout(tmp_path / "mistral").args.windows == (None, 8, None, 8)
    with pytest.raises(BadArgument, match="different windows"):
        write_release(args, tmp_path / "hf", format="hf")


def test_shards_are_about_equal_and_the_index_names_every_tensor(tmp_path: Path) -> None:
    args = write_preset("tiny-mixtral", tmp_path)
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert [shard.name for shard in shards] == [f"model-{i:05d}-of-00003.safetensors" for i in (1, 2, 3)]
    sizes = [shard.stat().st_size for shard in shards]
    assert max(sizes) < 1.3 * min(sizes)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 2 * args.n_params
    assert set(index["weight_map"].values()) == {shard.name for shard in shards}
    assert len(index["weight_map"]) == len(read_folder_layout(tmp_path).tensors)


@pytest.mark.parametrize(
    ("tokenizer", "file"), [("v1", "tokenizer.model"), ("v3", "tokenizer.model.v3"), ("tekken", "tekken.json")]
)
def test_the_tokenizer_file_is_the_real_one(tokenizer: str, file: str, tmp_path: Path) -> None:
    args = dataclasses.replace(PRESETS["odd-mixtral"].args, vocab_size=64)
    write_release(args, tmp_path, tokenizer=tokenizer)
    layout = read_folder_layout(tmp_path)
    assert layout.tokenizer_file == file
    assert (tmp_path / file).stat().st_size > 400_000


def test_the_demos_size_is_what_a_first_fetch_can_bear() -> None:
    assert 100e6 < 2 * PRESETS["demo"].args.n_params < 120e6
    assert PRESETS["demo"].args.vocab_size == 32768
    assert 2 * PRESETS["24-layer"].args.n_params > 60e6
    assert (PRESETS["24-layer"].args.n_layers, PRESETS["24-layer"].n_shards) == (24, 4)


def test_the_licence_is_stated(tmp_path: Path) -> None:
    write_preset("tiny-mistral", tmp_path)
    assert read_folder_layout(tmp_path).licence == "apache-2.0"


@pytest.mark.parametrize(
    "wrong", [{"format": "gguf"}, {"dtype": "int8"}, {"tokenizer": "v9"}], ids=["format", "dtype", "tokenizer"]
)
def test_what_cannot_be_written_is_refused_before_anything_is(wrong: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(BadArgument, match="choose"):
        write_release(PRESETS["tiny-mistral"].args, tmp_path / "out", **wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
    with pytest.raises(BadArgument, match="demo"):
        write_preset("big", tmp_path / "out")
