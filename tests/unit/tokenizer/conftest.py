"""Every tokenizer that mistral-common ships, and small tekken files of the versions that it does not ship."""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mistral_common.tokens.tokenizers.base import SpecialTokenPolicy
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from swarm.tokenizer import Tokenizer, load_tokenizer

BUNDLED = {
    "v1": "tokenizer.model.v1",
    "v2": "mistral_instruct_tokenizer_240216.model.v2",
    "v3": "mistral_instruct_tokenizer_240323.model.v3",
    "v7": "mistral_instruct_tokenizer_241114.model.v7",
    "v7m1": "mistral_instruct_tokenizer_241114.model.v7m1",
    "v3-tekken": "tekken_240718.json",
    "v3-tekken-mm": "tekken_240911.json",
}
SMALL_TEKKEN = ("v7", "v11", "v13", "v15")
N_SMALL_VOCAB = 3000
SPECIALS = """
    <unk> <s> </s> [INST] [/INST] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_RESULTS] [/TOOL_RESULTS] [TOOL_CALLS] [IMG]
    <pad> [IMG_BREAK] [IMG_END] [PREFIX] [MIDDLE] [SUFFIX] [SYSTEM_PROMPT] [/SYSTEM_PROMPT] [TOOL_CONTENT] [ARGS]
    [CALL_ID] [THINK] [/THINK] [MODEL_SETTINGS] [/MODEL_SETTINGS]
"""


@dataclass
class Case:
    """Our tokenizer, and mistral-common's own loading of the same file, to compare with."""

    name: str
    path: Path
    ours: Tokenizer
    reference: MistralTokenizer[Any, Any, Any, Any, Any]

    @functools.cached_property
    def byte_ids(self) -> list[int]:
        """The 256 ids that stand for single bytes, in the bytes' order."""
        raw = self.reference.instruct_tokenizer.tokenizer
        if hasattr(raw, "is_byte"):
            return [token_id for token_id in range(raw.n_words) if raw.is_byte(token_id)]
        return [raw._model.piece_to_id(f"<0x{byte:02X}>") for byte in range(256)]

    def reference_decode(self, ids: list[int]) -> str:
        return self.reference.decode(ids)

    def with_specials(self, ids: list[int]) -> str:
        return self.reference.decode(ids, special_token_policy=SpecialTokenPolicy.KEEP)


def bundled_path(name: str) -> Path:
    return Path(MistralTokenizer._data_path()) / BUNDLED[name]


def write_small_tekken(path: Path, version: str, n_vocab: int = N_SMALL_VOCAB) -> Path:
    """The first tokens of the real tekken file, under another version and with its special tokens spelled out."""
    data = json.loads(bundled_path("v3-tekken").read_text())
    data["vocab"] = data["vocab"][:n_vocab]
    # The template for filling in takes it that U+263A costs two ids, as it does in the whole vocabulary.
    data["vocab"][-1] = {"rank": n_vocab - 1, "token_bytes": base64.b64encode(b"\xe2\x98").decode(), "token_str": None}
    data["config"] |= {"version": version, "default_vocab_size": n_vocab + 40, "default_num_special_tokens": 40}
    data["special_tokens"] = [{"rank": i, "token_str": s, "is_control": True} for i, s in enumerate(SPECIALS.split())]
    if version == "v15":
        efforts = {"type": "enum", "values": ["none", "high"], "accepts_none": True, "default": "none"}
        data["model_settings_builder"] = {"reasoning_effort": efforts}
    path.write_text(json.dumps(data))
    return path


ALL = [*BUNDLED, *(f"{version}-tekken-small" for version in SMALL_TEKKEN)]
DISTINCT = ["v1", "v3", "v3-tekken", "v13-tekken-small"]
"""One of each way of decoding: the others share their pieces with one of these."""


@pytest.fixture(scope="session")
def load_case(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Case]:
    @functools.cache
    def load(name: str) -> Case:
        if name in BUNDLED:
            path = bundled_path(name)
        else:
            path = write_small_tekken(tmp_path_factory.mktemp(name) / "tekken.json", name.split("-")[0])
        return Case(name, path, load_tokenizer(path), MistralTokenizer.from_file(path))

    return load


@pytest.fixture(params=ALL)
def case(request: pytest.FixtureRequest, load_case: Callable[[str], Case]) -> Case:
    return load_case(request.param)


@pytest.fixture(scope="session", params=DISTINCT)
def distinct_case(request: pytest.FixtureRequest, load_case: Callable[[str], Case]) -> Case:
    return load_case(request.param)
