"""True layouts without data: held to what the libraries write at small scale, and to fetched/needed at true scale."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from swarm.errors import BadArgument
from swarm.release import (
    ModelArgs,
    PieceMap,
    args_from_params,
    hollow_release,
    names,
    pick_piece_size,
    plan_fetch,
    read_folder_layout,
)
from swarm.release.hollow import (
    HOLLOW_FORMATS,
    KNOWN_ARGS,
    HollowRelease,
    hf_state_dict,
    safetensors_head,
    split_into_shards,
)
from swarm.terms import ExpertId, Span

MOST = 1.02


def pieces_of(release: HollowRelease, piece_size: int) -> PieceMap:
    offsets, at = {}, 0
    for file in sorted(release.sizes):
        offsets[file] = at
        at += release.sizes[file]
    return PieceMap(piece_size, offsets, release.sizes)


def ratio(release: HollowRelease, pieces: PieceMap, spans: list[Span], experts: list[ExpertId]) -> float:
    fetch = plan_fetch(release.layout(spans, experts), pieces, spans, experts)
    return fetch.fetched_bytes / (fetch.needed_bytes + fetch.companion_bytes)


@pytest.mark.parametrize("format", HOLLOW_FORMATS)
@pytest.mark.parametrize("model", KNOWN_ARGS)
def test_at_most_two_percent_is_fetched_in_vain(model: str, format: str) -> None:
    release, args = hollow_release(KNOWN_ARGS[model], format), KNOWN_ARGS[model]
    pieces = pieces_of(release, pick_piece_size(sum(release.sizes.values()), format))
    for start in range(0, args.n_layers, 11):
        assert ratio(release, pieces, [Span(start, start + 1)], []) <= MOST
        assert ratio(release, pieces, [Span(start, min(start + 5, args.n_layers))], []) <= MOST
    for layer_idx in range(0, args.n_layers, 7):
        assert ratio(release, pieces, [], [ExpertId(layer_idx, layer_idx % args.n_experts)]) <= MOST
    for expert_idx in range(0, args.n_experts, 3):
        assert ratio(release, pieces, [], [ExpertId(i, expert_idx) for i in range(0, args.n_layers, 8)]) <= MOST


@pytest.mark.parametrize(("model", "n_shards"), [("mixtral-8x7b", 19), ("mixtral-8x22b", 59)])
def test_the_derived_shards_are_as_many_as_the_hub_has(model: str, n_shards: int) -> None:
    release = hollow_release(KNOWN_ARGS[model], "hf")
    assert sum(file.endswith(".safetensors") for file in release.sizes) == n_shards
    tensor_bytes = {"mixtral-8x7b": 93_405_585_408, "mixtral-8x22b": 281_241_268_224}[model]
    assert sum(t.size_bytes for t in release.layout().tensors.values()) == tensor_bytes


def test_shards_as_the_hubs_own_library_splits_them() -> None:
    torch, hub = pytest.importorskip("torch"), pytest.importorskip("huggingface_hub")
    shapes = hf_state_dict(KNOWN_ARGS["mixtral-8x7b"])
    meta = {name: torch.empty(shape, dtype=torch.bfloat16, device="meta") for name, shape in shapes.items()}
    split = hub.split_torch_state_dict_into_shards(meta, max_shard_size="5GB")
    assert split_into_shards(shapes, 2, 5 * 10**9) == list(split.filename_to_tensors.values())


def test_a_head_is_byte_for_byte_what_safetensors_writes(tmp_path: Path, tiny_tensors: dict[str, Any]) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(tiny_tensors, tmp_path / "w.safetensors", metadata={"format": "pt"})
    written = (tmp_path / "w.safetensors").read_bytes()
    shapes = {name: tuple(tensor.shape) for name, tensor in tiny_tensors.items()}
    head, size = safetensors_head(shapes, "bf16", {"format": "pt"})
    assert (written[: len(head)], len(written)) == (head, size)


def test_an_archive_is_laid_out_as_torch_lays_it_out(
    pth_folder: Path, tiny_params: dict[str, Any], tiny_tensors: dict[str, Any]
) -> None:
    """Same order, same shapes, and offsets that differ by torch's own small entries and its shorter pickle alone."""
    written = read_folder_layout(pth_folder).tensors
    hollow = hollow_release(args_from_params(tiny_params), "mistral-pth").layout().tensors
    assert {n: (t.file, t.dtype, t.shape) for n, t in hollow.items()} == {
        n: (t.file, t.dtype, t.shape) for n, t in written.items()
    }
    assert sorted(hollow, key=lambda n: hollow[n].offset) == sorted(written, key=lambda n: written[n].offset)
    assert all(tensor.offset % 64 == 0 for tensor in hollow.values())
    assert all(abs(t.offset - written[n].offset) < 1024 + 256 * len(written) for n, t in hollow.items())


@pytest.mark.parametrize("format", HOLLOW_FORMATS)
def test_every_format_holds_the_whole_model_once(tiny_params: dict[str, Any], format: str) -> None:
    args = args_from_params(tiny_params)
    layout = hollow_release(args, format, shard_bytes=10_000).layout()
    assert {name: tensor.shape for name, tensor in layout.tensors.items()} == names.all_shapes(args)
    ranges = sorted(tensor.byte_range for tensor in layout.tensors.values())
    assert sum(r.size_bytes for r in ranges) == sum(2 * math.prod(s) for s in names.all_shapes(args).values())
    assert layout.args.rope_layout == ("halves" if format == "hf" else "interleaved")


def test_offsets_beyond_four_gigabytes_are_told_by_zip64() -> None:
    layout = hollow_release(KNOWN_ARGS["mixtral-8x7b"], "mistral-pth").layout([Span(31, 32)])
    assert min(t.offset for t in layout.layer_tensors(31).values()) > 1 << 36


def test_other_formats_and_dense_models_are_refused() -> None:
    with pytest.raises(BadArgument, match="formats: hf"):
        hollow_release(KNOWN_ARGS["mixtral-8x7b"], "gguf")
    dense = dataclasses.replace(KNOWN_ARGS["mixtral-8x7b"], architecture="mistral", n_experts=0, n_experts_per_tok=0)
    assert isinstance(dense, ModelArgs)
    with pytest.raises(BadArgument, match="mistral model"):
        hollow_release(dense, "hf")
