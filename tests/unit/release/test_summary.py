"""What `swarm release inspect` shows, and which files count as what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import swarm.release
from swarm.errors import BadArgument, CorruptRelease
from swarm.release import companion_files, describe, list_folder, read_folder_layout
from swarm.release.files import choose_tokenizer_file, find_licence


def test_the_figures_add_up(hf_release: Any, tiny_config: dict[str, Any]) -> None:
    release = hf_release(tiny_config, 10_000)
    release.add("README.md", b"---\nlicense: apache-2.0\ntags:\n- moe\n---\n# Tiny\n")
    release.add("tokenizer.model.v3", b"x")
    summary = describe(release.layout(), release.sizes)
    assert (summary.architecture, summary.format, summary.stored_dtype) == ("mixtral", "hf", "bf16")
    assert (summary.n_layers, summary.n_experts, summary.n_experts_per_tok, summary.context) == (3, 4, 2, 512)
    assert summary.licence == "apache-2.0"
    assert summary.tokenizer_file == "tokenizer.model.v3"
    assert summary.layer_bytes == summary.trunk_bytes + 4 * summary.expert_bytes
    assert summary.tensor_bytes == summary.n_params * 2
    assert summary.tensor_bytes == 3 * summary.layer_bytes + summary.embedding_bytes + summary.head_bytes
    assert summary.total_bytes == sum(release.sizes.values())


def test_a_dense_windowed_tied_model(hf_release: Any, tiny_config: dict[str, Any]) -> None:
    config = tiny_config | {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": 9}
    release = hf_release(config | {"tie_word_embeddings": True}, 10_000)
    summary = describe(release.layout(), release.sizes)
    assert (summary.n_experts, summary.expert_bytes, summary.windows) == (0, 0, (9,))
    assert summary.trunk_bytes == summary.layer_bytes
    assert summary.n_active_params == summary.n_params
    assert summary.tensor_bytes == summary.n_params * 2
    assert summary.licence is None


@pytest.mark.parametrize(
    ("texts", "licence"),
    [
        ({"README.md": b"---\nlicense: Apache-2.0\n---\n"}, "apache-2.0"),
        ({"README.md": b"---\nlanguage: en\nlicense: other\nlicense_name: mnpl\n---\n"}, "mnpl"),
        ({"README.md": b"---\nlicense: other\n---\n", "LICENSE": b"Mistral AI Research License\n"}, "mrl"),
        ({"README.md": b"---\nlicense: other\n---\n"}, "other"),
        ({"README.md": b"---\nlicense: other\n---\n", "LICENSE": b"All rights reserved"}, "other"),
        ({"README.md": b"---\nlicense:\n- apache-2.0\n- other\n---\n"}, "other"),
        ({"README.md": b"---\nlicense: 'Research and  study only'\n---\n"}, "research and  study only"),
        ({"README.md": b"---\nlicense: " + b"x" * 900 + b"\n---\n"}, "x" * 200),
        ({"README.md": b"# no front matter\nlicense: mit\n"}, None),
        ({"README.md": b"---\ntags: x\n---\nlicense: mit\n"}, None),
        ({"LICENSE": b"\n      Apache License\n    Version 2.0, January 2004\n"}, "apache-2.0"),
        ({"LICENSE": b"\xff\xfe" * 3000}, None),
        ({}, None),
    ],
)
def test_licences(texts: dict[str, bytes], licence: str | None) -> None:
    assert find_licence(texts) == licence


def test_companions_are_the_small_files_of_the_top_folder() -> None:
    files = {
        "config.json": 9,
        "LICENSE": 9,
        "tekken.json": 20 << 20,
        "model-00001-of-00002.safetensors": 9,
        "model.safetensors.index.json": 9,
        "consolidated.00.pth": 9,
        "original/params.json": 9,
        ".gitattributes": 9,
        "movie.mkv": 9 << 30,
        "release.torrent": 9,
        ".pad/123": 123,
    }
    assert companion_files(files) == ("LICENSE", "config.json", "model.safetensors.index.json", "tekken.json")


@pytest.mark.parametrize(("n_files", "size"), [(1001, 1), (5, 60 << 20)])
def test_too_many_or_too_large_companions_are_refused(n_files: int, size: int) -> None:
    files = {f"{i}.txt": size for i in range(n_files)}
    with pytest.raises(CorruptRelease, match=f"{n_files} small files of {n_files * size} bytes in all"):
        companion_files(files)
    files.pop("0.txt")
    assert len(companion_files(files)) == n_files - 1


def test_tokenizer_files() -> None:
    assert choose_tokenizer_file({"tokenizer.model": 1, "tekken.json": 1}) == "tekken.json"
    files = {"tokenizer.model": 1, "tokenizer.model.v3": 1, "tokenizer.model.v11": 1, "tokenizer.model.v7m1": 1}
    assert choose_tokenizer_file(files) == "tokenizer.model.v11"
    assert choose_tokenizer_file({"tokenizer.model": 1}) == "tokenizer.model"
    assert choose_tokenizer_file({"tokenizer.json": 1}) is None


def test_folders(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".cache").mkdir()
    for file, text in (("b", "22"), ("a", "1"), ("sub/c", "333"), (".cache/x", "x"), (".hidden", "x")):
        (tmp_path / file).write_text(text)
    (tmp_path / "link").symlink_to(tmp_path / "b")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    assert list_folder(tmp_path) == {"a": 1, "b": 2, "link": 2, "sub/c": 3}
    with pytest.raises(BadArgument, match="not a folder"):
        read_folder_layout(tmp_path / "nowhere")


def test_exported_names() -> None:
    assert sorted(swarm.release.__all__) == swarm.release.__all__
    assert all(hasattr(swarm.release, name) for name in swarm.release.__all__)
