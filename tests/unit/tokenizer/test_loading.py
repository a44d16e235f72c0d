"""Any file either loads or is refused as corrupt; names alone tell which file to load."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from swarm.errors import CorruptRelease
from swarm.tokenizer import load_tokenizer

DATA = Path(MistralTokenizer._data_path())


def test_what_a_loaded_tokenizer_says_of_itself(case: Any) -> None:
    raw = case.reference.instruct_tokenizer.tokenizer
    assert case.ours.version == raw.version.value == case.name.split("-")[0].removesuffix("m1")
    assert case.ours.vocab_size == raw.n_words
    assert (case.ours.bos_id, case.ours.eos_id) == (raw.bos_id, raw.eos_id) == (1, 2)
    assert case.ours.has_chat_template


@pytest.mark.parametrize(
    ("bundled", "version"),
    [
        ("tokenizer.model.v1", "v1"),
        ("mistral_instruct_tokenizer_240216.model.v2", "v2"),
        ("mistral_instruct_tokenizer_240323.model.v3", "v3"),
        ("mistral_instruct_tokenizer_241114.model.v7", "v7"),
    ],
)
def test_a_bare_tokenizer_model_is_told_by_its_tokens(tmp_path: Path, bundled: str, version: str) -> None:
    shutil.copy(DATA / bundled, tmp_path / "tokenizer.model")
    assert load_tokenizer(tmp_path / "tokenizer.model").version == version


def test_a_file_without_its_version_s_tokens_has_no_template(tmp_path: Path) -> None:
    """SentencePiece would answer <unk> for [INST] and say nothing."""
    shutil.copy(DATA / "tokenizer.model.v1", tmp_path / "tokenizer.model.v3")
    tokenizer = load_tokenizer(tmp_path / "tokenizer.model.v3")
    assert not tokenizer.has_chat_template
    assert tokenizer.decode(tokenizer.encode("Hello")) == "Hello"


@pytest.fixture(scope="module")
def small_tekken() -> dict[str, Any]:
    data: dict[str, Any] = json.loads((DATA / "tekken_240718.json").read_text())
    data["vocab"] = data["vocab"][:300]
    data["config"] |= {"default_vocab_size": 340, "default_num_special_tokens": 40}
    return data


def test_a_tiny_tekken_file_loads(tmp_path: Path, small_tekken: dict[str, Any]) -> None:
    (tmp_path / "tekken.json").write_text(json.dumps(small_tekken))
    tokenizer = load_tokenizer(tmp_path / "tekken.json")
    assert tokenizer.vocab_size == 340
    assert tokenizer.decode(tokenizer.encode_chat([{"role": "user", "content": "Hé"}])) == "Hé"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: d.pop("vocab"),
        lambda d: d.pop("config"),
        lambda d: d["config"].pop("pattern"),
        lambda d: d["config"].update(version="v99"),
        lambda d: d["config"].update(version=None),
        lambda d: d["config"].update(version=[]),
        lambda d: d["config"].update(version="v13"),
        lambda d: d["config"].update(default_vocab_size=10**9),
        lambda d: d["config"].update(default_vocab_size="many"),
        lambda d: d["config"].update(default_vocab_size=-1),
        lambda d: d["config"].update(pattern="(unclosed"),
        lambda d: d["config"].update(pattern="x"),
        lambda d: d["config"].update(default_num_special_tokens=3),
        lambda d: d["vocab"][7].update(token_bytes="AQ=="),
        lambda d: d["vocab"][7].update(token_bytes="not base64!"),
        lambda d: d["vocab"][7].update(rank=8),
        lambda d: d["vocab"].append("x") or d["config"].update(default_vocab_size=341),
        lambda d: d.update(special_tokens=[{"rank": 0, "token_str": "a"}] * 2),
        lambda d: d.update(special_tokens=7),
        lambda d: d.update(special_tokens=[{"rank": 0, "token_str": "<unk>", "is_control": True}]),
        lambda d: d.update(multimodal={"image_patch_size": "x"}),
        lambda d: d.update(audio=3),
    ],
)
def test_a_spoilt_tekken_file_is_corrupt(tmp_path: Path, small_tekken: dict[str, Any], spoil: Any) -> None:
    data = json.loads(json.dumps(small_tekken))
    spoil(data)
    (tmp_path / "tekken.json").write_text(json.dumps(data))
    with pytest.raises(CorruptRelease, match=r"tekken\.json is not a tokenizer that this version reads"):
        load_tokenizer(tmp_path / "tekken.json")


@pytest.mark.parametrize(
    "name", ["tekken.json", "tokenizer.model", "tokenizer.model.v3", "tokenizer.model.v99", "x.bin"]
)
@pytest.mark.parametrize("content", [b"", b"\x00\xff" * 50, b"[]", b"{}", b"null", b"[" * 100_000, b'{"config": 3}'])
def test_bytes_that_are_no_tokenizer_are_corrupt(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorruptRelease, match="is not a tokenizer"):
        load_tokenizer(tmp_path / name)


@pytest.mark.parametrize(
    "config", [{"pattern": ""}, {"pattern": "(?=a)"}, {"default_vocab_size": 41}, {"default_vocab_size": 270}]
)
def test_a_tekken_file_that_makes_tiktoken_panic_is_corrupt(
    tmp_path: Path, small_tekken: dict[str, Any], config: dict[str, Any]
) -> None:
    """A panic is a BaseException: it would pass every `except Exception` on its way up."""
    data = small_tekken | {"config": small_tekken["config"] | config}
    (tmp_path / "tekken.json").write_text(json.dumps(data))
    with pytest.raises(CorruptRelease):
        load_tokenizer(tmp_path / "tekken.json")


def test_a_pattern_that_panics_on_some_text_only_is_corrupt_then(tmp_path: Path, small_tekken: dict[str, Any]) -> None:
    pattern = r"(?=\u16a0)|[\s\S]"
    data = small_tekken | {"config": small_tekken["config"] | {"pattern": pattern}}
    (tmp_path / "tekken.json").write_text(json.dumps(data))
    tokenizer = load_tokenizer(tmp_path / "tekken.json")
    with pytest.raises(CorruptRelease, match="makes its own tokenizer fail"):
        tokenizer.encode("\u16a0")


def test_a_cut_off_file_is_corrupt(tmp_path: Path) -> None:
    for bundled in ("tokenizer.model.v1", "tekken_240718.json"):
        whole = (DATA / bundled).read_bytes()
        (tmp_path / bundled).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(CorruptRelease, match="is not a tokenizer"):
            load_tokenizer(tmp_path / bundled)


def test_a_missing_or_monstrous_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with pytest.raises(CorruptRelease, match="No such file"):
        load_tokenizer(tmp_path / "tekken.json")
    with (tmp_path / "tekken.json").open("wb") as sparse:
        sparse.truncate(2**40)
    with pytest.raises(CorruptRelease, match="no tokenizer has over"):
        load_tokenizer(tmp_path / "tekken.json")


def test_importing_the_room_does_not_import_mistral_common() -> None:
    code = "import sys, swarm.tokenizer; sys.exit('mistral_common' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
