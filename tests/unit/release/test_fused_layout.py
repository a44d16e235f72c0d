"""The fused Mixtral layout: torch.save's own files of whole layers, and files that contradict it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swarm.errors import CorruptRelease, UnsupportedArchitecture
from swarm.release import ByteRange, ModelArgs, args_from_params, drive, list_folder, read_folder_layout, read_layout
from swarm.terms import ExpertId, Span

torch = pytest.importorskip("torch")

N_FILES = 3


def fuse(tensors: dict[str, Any], args: ModelArgs) -> dict[str, Any]:
    """The same weights under the fused layout's names, in the order of computation."""
    fused = {}
    for name, tensor in tensors.items():
        if ".experts." not in name:
            fused[name.replace("feed_forward.gate", "block_sparse_moe.gate")] = tensor
        elif ".experts.0." in name:
            layer, matrix = name.split(".feed_forward")[0], name.split(".")[-2]
            experts = [tensors[name.replace(".experts.0.", f".experts.{e}.")] for e in range(args.n_experts)]
            parts = [expert.T if matrix == "w2" else expert for expert in experts]
            fused[f"{layer}.block_sparse_moe.{matrix}"] = torch.cat(parts).contiguous()
    return fused


def write_fused(folder: Path, fused: dict[str, Any], n_layers: int, n_files: int = N_FILES) -> None:
    def file_of(name: str) -> int:
        if name.startswith("layers."):
            return int(name.split(".")[1]) * n_files // n_layers
        return 0 if name == "tok_embeddings.weight" else n_files - 1

    for i in range(n_files):
        torch.save({n: t for n, t in fused.items() if file_of(n) == i}, folder / f"consolidated.{i:02}.pt")


@pytest.fixture
def args(tiny_params: dict[str, Any]) -> ModelArgs:
    return args_from_params(tiny_params)


@pytest.fixture
def folder(tmp_path: Path, tiny_params: dict[str, Any], tiny_tensors: dict[str, Any], args: ModelArgs) -> Path:
    write_fused(tmp_path, fuse(tiny_tensors, args), args.n_layers)
    (tmp_path / "params.json").write_text(json.dumps(tiny_params))
    return tmp_path


def test_every_weight_loads_as_it_was(folder: Path, tiny_tensors: dict[str, Any]) -> None:
    from node.weights import load_tensors

    layout = read_folder_layout(folder)
    assert layout.format == "mistral-fused"
    assert layout.args.rope_layout == "interleaved"
    loaded = load_tensors(layout.tensors, folder, dtype=torch.bfloat16)
    assert loaded.keys() == tiny_tensors.keys()
    for name, tensor in tiny_tensors.items():
        assert torch.equal(loaded[name], tensor), name
        assert loaded[name].is_contiguous()


def test_an_expert_is_one_range_of_each_matrix_and_of_its_own_size(folder: Path, args: ModelArgs) -> None:
    layout = read_folder_layout(folder)
    expert = layout.expert_tensors(ExpertId(1, 2))
    assert [t.is_transposed for t in expert.values()] == [False, True, False]
    assert sum(t.size_bytes for t in expert.values()) == 2 * args.n_expert_params
    ranges = sorted(t.byte_range for t in layout.tensors.values())
    assert all(a.file != b.file or a.end <= b.offset for a, b in itertools.pairwise(ranges))


@pytest.mark.parametrize("layer_idx", [0, 1, 2])
def test_only_the_file_of_the_asked_layers_is_read(folder: Path, layer_idx: int) -> None:
    asked = set()

    def read(wanted: ByteRange) -> bytes:
        asked.add(wanted.file)
        return (folder / wanted.file).read_bytes()[wanted.offset : wanted.end]

    layout = drive(read_layout(list_folder(folder), (Span(layer_idx, layer_idx + 1),)), read)
    needed = {tensor.file for tensor in layout.span_tensors(Span(layer_idx, layer_idx + 1)).values()}
    assert asked == {"params.json"} | needed


def test_layers_elsewhere_than_expected_are_found_too(
    tmp_path: Path, tiny_params: dict[str, Any], tiny_tensors: dict[str, Any], args: ModelArgs
) -> None:
    fused = fuse(tiny_tensors, args)
    torch.save({n: t for n, t in fused.items() if n.startswith("layers.2.")}, tmp_path / "consolidated.00.pt")
    torch.save({n: t for n, t in fused.items() if not n.startswith("layers.2.")}, tmp_path / "consolidated.01.pt")
    (tmp_path / "params.json").write_text(json.dumps(tiny_params))
    layout = read_folder_layout(tmp_path, (Span(0, 1),))
    assert {t.file for t in layout.span_tensors(Span(0, 1)).values()} == {"consolidated.01.pt"}


@pytest.mark.parametrize("file", ["params.json", "config.json"])
def test_a_config_in_hf_words_does_not_change_the_rope_layout(
    folder: Path, tiny_config: dict[str, Any], file: str
) -> None:
    (folder / "params.json").unlink()
    for key in ("architectures", "model_type", "max_position_embeddings"):
        del tiny_config[key]
    (folder / file).write_text(json.dumps(tiny_config))
    args = read_folder_layout(folder).args
    assert (args.rope_layout, args.n_experts, args.max_positions) == ("interleaved", 4, 32768)


Damage = Callable[[dict[str, Any]], None]
FAULTS: dict[str, tuple[Damage, type[Exception], str]] = {
    "rows split over files": (
        lambda f: f.update({"layers.0.block_sparse_moe.w1": f["layers.0.block_sparse_moe.w1"][:24].clone()}),
        CorruptRelease,
        "with shape",
    ),
    "a layer lacks a matrix": (lambda f: f.pop("layers.1.block_sparse_moe.w2"), CorruptRelease, "lacks the tensor"),
    "a tensor too many": (
        lambda f: f.update({"layers.0.block_sparse_moe.w4": torch.zeros(2, 2)}),
        UnsupportedArchitecture,
        "does not account for",
    ),
    "another router": (
        lambda f: f.update({"layers.0.block_sparse_moe.gate.weight": torch.zeros(4, 8).bfloat16()}),
        CorruptRelease,
        "with shape",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_not_that_layout_is_refused(
    tmp_path: Path, tiny_params: dict[str, Any], tiny_tensors: dict[str, Any], args: ModelArgs, fault: str
) -> None:
    damage, kind, message = FAULTS[fault]
    fused = fuse(tiny_tensors, args)
    damage(fused)
    write_fused(tmp_path, fused, args.n_layers)
    (tmp_path / "params.json").write_text(json.dumps(tiny_params))
    with pytest.raises(kind, match=message):
        read_folder_layout(tmp_path)


def test_the_same_tensor_in_two_files_is_refused(folder: Path, tiny_tensors: dict[str, Any]) -> None:
    twice = torch.load(folder / "consolidated.02.pt") | {"tok_embeddings.weight": tiny_tensors["tok_embeddings.weight"]}
    torch.save(twice, folder / "consolidated.02.pt")
    with pytest.raises(CorruptRelease, match="both hold tok_embeddings"):
        read_folder_layout(folder)


def test_a_gap_in_the_numbers_is_refused(folder: Path) -> None:
    (folder / "consolidated.01.pt").rename(folder / "consolidated.05.pt")
    with pytest.raises(UnsupportedArchitecture, match=r"consolidated\.00\.pt to \.07\.pt"):
        read_folder_layout(folder)
