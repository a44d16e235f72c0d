"""Tokenizers of every form of tool calls: mistral-common's own files, and small tekken files of newer versions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import mistral_common
import pytest

from swarm.tokenizer import Tokenizer, load_tokenizer

DATA = Path(mistral_common.__file__).parent / "data"
BUNDLED = {
    "v1": "tokenizer.model.v1",
    "v2": "mistral_instruct_tokenizer_240216.model.v2",
    "v3": "mistral_instruct_tokenizer_240323.model.v3",
    "v7": "mistral_instruct_tokenizer_241114.model.v7",
    "tekken-v3": "tekken_240911.json",
}
SPECIALS = ("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "[SYSTEM_PROMPT]",
            "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[/SYSTEM_PROMPT]",
            "[TOOL_CONTENT]", "[PREFIX]", "[SUFFIX]", "[MIDDLE]", "<pad>", "[THINK]", "[/THINK]")  # fmt: skip


@pytest.fixture(scope="session")
def tokenizer_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tokenizer]:
    """tokenizer_of("v3"), tokenizer_of("tekken-v13"): read once per run."""
    read: dict[str, Tokenizer] = {}

    def find(name: str) -> Tokenizer:
        if name not in read:
            path = DATA / BUNDLED[name] if name in BUNDLED else write_small(tmp_path_factory.mktemp(name), name[7:])
            read[name] = load_tokenizer(path)
        return read[name]

    return find


def write_small(folder: Path, version: str) -> Path:
    """The 3000 likeliest pieces of a real tekken file under another version's special tokens."""
    file = json.loads((DATA / "tekken_240911.json").read_text())
    file["config"] |= {"version": version, "default_vocab_size": 3000, "default_num_special_tokens": 100}
    file["vocab"] = file["vocab"][:2900]
    file["special_tokens"] = [{"rank": i, "token_str": name, "is_control": True} for i, name in enumerate(SPECIALS)]
    file.pop("multimodal", None)
    file.pop("image", None)
    (folder / "tekken.json").write_text(json.dumps(file))
    return folder / "tekken.json"
