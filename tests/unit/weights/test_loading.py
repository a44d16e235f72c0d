from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from node.weights import load_tensors, write_preset
from swarm.errors import CorruptRelease
from swarm.release import TensorRange, read_folder_layout


def test_safetensors_ranges_are_what_safetensors_reads(tmp_path: Path) -> None:
    write_preset("tiny-mixtral", tmp_path, format="mistral", dtype="bf16")
    layout = read_folder_layout(tmp_path)
    expected = {}
    for shard in tmp_path.glob("*.safetensors"):
        expected |= load_file(shard)
    got = load_tensors(layout.tensors, tmp_path, dtype=torch.bfloat16)
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], tensor) and got[name].dtype == tensor.dtype for name, tensor in expected.items())


def test_pth_ranges_are_what_torch_loads(tmp_path: Path) -> None:
    write_preset("tiny-mistral", tmp_path, format="mistral-pth", dtype="bf16")
    layout = read_folder_layout(tmp_path)
    expected = torch.load(tmp_path / "consolidated.00.pth", weights_only=True)
    got = load_tensors(layout.tensors, tmp_path, dtype=torch.bfloat16)
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(
    ("stored", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)]
)
def test_each_stored_dtype_converts_and_no_other_byte_is_read(tmp_path: Path, stored: str, dtype: torch.dtype) -> None:
    values = torch.randn(3, 5).to(dtype)
    offset = (1 << 33) + 3  # a hole of 8 GiB in front, and no alignment
    with open(tmp_path / "shard", "wb") as file:
        file.seek(offset)
        file.write(values.view(torch.uint8).numpy().tobytes() + b"rest")
    ranges = {"b": TensorRange("shard", offset, stored, (3, 5)), "a": TensorRange("shard", offset, stored, (5, 3))}
    got = load_tensors(ranges, tmp_path, dtype=torch.float32)
    assert list(got) == ["b", "a"]
    assert torch.equal(got["b"], values.float())
    assert torch.equal(got["a"], values.float().view(5, 3))


def test_a_range_of_nothing_is_an_empty_tensor(tmp_path: Path) -> None:
    (tmp_path / "shard").write_bytes(b"")
    got = load_tensors({"w": TensorRange("shard", 0, "fp32", (0, 4))}, tmp_path, dtype=torch.float32)
    assert got["w"].shape == (0, 4)


def test_a_file_that_ends_within_a_tensor_is_corrupt(tmp_path: Path) -> None:
    (tmp_path / "shard").write_bytes(bytes(20))
    with pytest.raises(CorruptRelease, match=r"ends within layers\.0\.w: 16 bytes were expected at 8, 12 are there"):
        load_tensors({"layers.0.w": TensorRange("shard", 8, "fp32", (4,))}, tmp_path, dtype=torch.float32)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorruptRelease, match=r"model-7\.safetensors does not exist"):
        load_tensors({"w": TensorRange("model-7.safetensors", 0, "fp32", (4,))}, tmp_path, dtype=torch.float32)
