"""Invariant: a hostile release is refused with a message, in bounded memory, and nothing of it runs or is believed."""

from __future__ import annotations

import json
import pickle
import runpy
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swarm.errors import CorruptRelease, SwarmError, UnsupportedArchitecture
from swarm.release import FileDigest, Manifest, TensorRange, list_folder, read_folder_layout
from swarm.release.canonical_json import canonical_bytes
from swarm.release.heads import header_size, parse_header
from swarm.release.reading import MAX_INDEX_BYTES

MIB = 1 << 20
MOST_BYTES = 64 * MIB
PROGRAM = str(Path(__file__).parent / "release_bombs.py")
BOMBS: list[str] = list(runpy.run_path(PROGRAM)["BOMBS"])
ALLOWED = ("as many tensors as are allowed", "as many signed tensors as are allowed")
REFUSALS = (CorruptRelease, UnsupportedArchitecture)
GOOD = Manifest(
    "m", "1", "apache-2.0", "", "hf", {"model.safetensors": FileDigest(10, "0" * 64)},
    {"norm.weight": TensorRange("model.safetensors", 4, "bf16", (2,), False, "1" * 64)},
)  # fmt: skip


def peak_of(action: Callable[[], object]) -> tuple[int, BaseException | None]:
    """The most memory that the action held at once, and what it raised on purpose."""
    tracemalloc.start()
    try:
        action()
        raised = None
    except SwarmError as error:
        raised = error
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak, raised


@pytest.mark.parametrize("bomb", BOMBS)
def test_memory_is_bounded(bomb: str) -> None:
    """In a process of its own, whose memory grows by what the reader holds at once and by nothing else."""
    ran = subprocess.run([sys.executable, PROGRAM, bomb], capture_output=True, text=True, timeout=120, check=True)
    grown_bytes, raised = json.loads(ran.stdout)
    assert raised in (("",) if bomb in ALLOWED else ("CorruptRelease", "UnsupportedArchitecture"))
    assert grown_bytes <= MOST_BYTES, f"{grown_bytes / MIB:.0f} MiB"


@pytest.mark.parametrize("declared", [9 * MIB, 99_000_000, 1 << 40, (1 << 64) - 1])
def test_a_huge_header_is_refused_by_its_length_alone(declared: int) -> None:
    with pytest.raises(CorruptRelease, match="header of"):
        header_size(struct.pack("<Q", declared), "w.safetensors", 1 << 30)


def test_an_index_beyond_its_bound_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**HF_CONFIG}))
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with open(tmp_path / "model.safetensors.index.json", "wb") as file:
        file.truncate(MAX_INDEX_BYTES + 1)
    peak, raised = peak_of(lambda: read_folder_layout(tmp_path))
    assert isinstance(raised, CorruptRelease)
    assert peak < MIB


HF_CONFIG: dict[str, Any] = {
    "architectures": ["MistralForCausalLM"],
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 8,
    "vocab_size": 8,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 64,
}
PARAMS = {
    "dim": 8, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "head_dim": 4, "hidden_dim": 8, "vocab_size": 8,
    "norm_eps": 1e-5, "moe": {"num_experts": 2, "num_experts_per_tok": 1},
}  # fmt: skip


@pytest.mark.parametrize("file", ["consolidated.00.pth", "consolidated.00.pt"])
def test_a_zip_bomb_is_not_unpacked(tmp_path: Path, file: str) -> None:
    (tmp_path / "params.json").write_text(json.dumps(PARAMS))
    with zipfile.ZipFile(tmp_path / file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * (100 << 20))
    peak, raised = peak_of(lambda: read_folder_layout(tmp_path))
    assert isinstance(raised, CorruptRelease)
    assert "compressed" in str(raised)
    assert peak < MIB


@pytest.mark.parametrize("file", ["consolidated.00.pth", "consolidated.00.pt"])
def test_a_pickle_that_calls_something_does_not_run(tmp_path: Path, file: str) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "it-ran",)

    (tmp_path / "params.json").write_text(json.dumps(PARAMS))
    with zipfile.ZipFile(tmp_path / file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"norm.weight": Payload()}, protocol=2))
    with pytest.raises(CorruptRelease, match="Nothing in it ran"):
        read_folder_layout(tmp_path)
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..", "a/../b", "model.safetensors\0"])
def test_an_index_cannot_name_a_file_outside_of_the_release(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(HF_CONFIG))
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"model.norm.weight": name}}))
    with pytest.raises(CorruptRelease, match="does not have"):
        read_folder_layout(tmp_path)


@pytest.mark.parametrize(
    "name", ["../../etc/x", "a/b", "\x1b[2J", "a" * 300, "..", "", "layers.0.attention.wq.weight\n"]
)
def test_a_tensor_cannot_have_a_name_that_harms(name: str) -> None:
    data = json.dumps({name: {"dtype": "BF16", "shape": [0], "data_offsets": [0, 0]}}).encode()
    with pytest.raises(CorruptRelease) as caught:
        parse_header(data, "w.safetensors", 8 + len(data))
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_folders_that_loop_and_things_that_are_no_files_are_left_out(tmp_path: Path) -> None:
    import os

    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "README.md").write_text("hello")
    assert list_folder(tmp_path) == {"README.md": 5}


BAD_PATHS = ("../x", "/etc/passwd", "a//b", "a/./b", "", ".", "a\\b", "a\nb", " a", "x" * 2000, "a/..", "\x00")


@pytest.mark.parametrize("path", BAD_PATHS)
def test_a_manifest_cannot_name_a_path_outside_of_the_release(path: str) -> None:
    value = json.loads(GOOD.to_bytes())
    value["files"][path] = {"size": 1, "sha256": "0" * 64}
    with pytest.raises(CorruptRelease, match=r"manifest\.json names the file"):
        Manifest.parse(canonical_bytes(value))


@pytest.mark.parametrize(
    "spelled",
    [
        GOOD.to_bytes() + b"\n",
        GOOD.to_bytes().replace(b":", b": ", 1),
        GOOD.to_bytes().replace(b'"size":10', b'"size":1e1'),
        GOOD.to_bytes().replace(b'"size":10', b'"size":10.0'),
        GOOD.to_bytes().replace(b'"name":"m"', b'"name":"\\u006d"'),
        GOOD.to_bytes().replace(b'"name":"m"', b'"name":"m","name":"m"'),
        GOOD.to_bytes().replace(b'"size":10', b'"size":true'),
        GOOD.to_bytes().replace(b'"transposed":false', b'"transposed":0'),
        GOOD.to_bytes().replace(b'"offset":4', b'"offset":-4'),
        GOOD.to_bytes().replace(b"bf16", b"fp8!"),
        GOOD.to_bytes().replace(b"1" * 64, b""),
        GOOD.to_bytes().replace(b'"version":"1"', b'"version":1'),
        json.dumps(json.loads(GOOD.to_bytes()), sort_keys=False).encode(),
    ],
)
def test_a_manifest_has_one_spelling(spelled: bytes) -> None:
    assert Manifest.parse(GOOD.to_bytes()) == GOOD
    with pytest.raises(CorruptRelease):
        Manifest.parse(spelled)


@settings(max_examples=150, deadline=10_000, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_manifest_parses_or_is_refused(data: st.DataObject) -> None:
    """Bytes changed, cut and put in anywhere; and whatever parses says exactly what its bytes say."""
    raw = bytearray(GOOD.to_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        found = Manifest.parse(bytes(raw))
    except CorruptRelease:
        return
    assert found.to_bytes() == bytes(raw)


@settings(max_examples=100, deadline=10_000, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_fused_archive_with_changed_bytes_is_read_or_refused(data: st.DataObject) -> None:
    from swarm.release import args_from_params, hollow_release

    release = hollow_release(args_from_params(PARAMS), "mistral-fused")
    file = "consolidated.00.pt"
    parts = release._parts[file]
    offset = data.draw(st.sampled_from(sorted(parts)))
    raw = bytearray(parts[offset])
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    parts[offset] = bytes(raw)
    try:
        layout = release.layout()
    except REFUSALS:
        return
    for tensor in layout.tensors.values():
        assert tensor.offset >= 0
        assert tensor.byte_range.end <= release.sizes[tensor.file]
