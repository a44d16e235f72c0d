"""Invariant: a damaged tokenizer file is refused as CorruptRelease, or loads and then encodes and decodes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from swarm.errors import CorruptRelease
from swarm.tokenizer import load_tokenizer

DATA = Path(MistralTokenizer._data_path())
EDITS = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 6), st.binary(max_size=4)), max_size=5)


def damage(data: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    """At each place (a share of the length) so many bytes are replaced by others."""
    for place, n_removed, added in edits:
        at = int(place * len(data))
        data = data[:at] + added + data[at + n_removed :]
    return data


def load_and_use(path: Path) -> None:
    try:
        tokenizer = load_tokenizer(path)
    except CorruptRelease:
        return
    try:
        ids = tokenizer.encode("Hello, ümlaut 日本 🙂")
    except CorruptRelease:  # the pattern of a tekken file is tried on a few texts only when it is loaded
        return
    decoder = tokenizer.stream()
    assert "".join([decoder.push(token_id) for token_id in ids]) + decoder.flush() == tokenizer.decode(ids)
    if tokenizer.has_chat_template:
        assert tokenizer.encode_chat([{"role": "user", "content": "Hi"}])


@pytest.fixture(scope="module")
def tiny_tekken() -> dict[str, Any]:
    data: dict[str, Any] = json.loads((DATA / "tekken_240718.json").read_text())
    data["vocab"] = data["vocab"][:270]
    data["config"] |= {"default_vocab_size": 310, "default_num_special_tokens": 40}
    return data


@given(edits=EDITS)
@settings(max_examples=70, deadline=None)
def test_a_damaged_tekken_file(
    edits: list[tuple[float, int, bytes]], tiny_tekken: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("tekken") / "tekken.json"
    path.write_bytes(damage(json.dumps(tiny_tekken).encode(), edits))
    load_and_use(path)
    shutil.rmtree(path.parent)


JSON = st.recursive(st.none() | st.booleans() | st.integers(-5, 400) | st.floats() | st.text(max_size=5), st.lists)


@given(data=st.data())
@settings(max_examples=70, deadline=None)
def test_a_tekken_file_with_a_field_of_the_wrong_kind(
    data: st.DataObject, tiny_tekken: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    spoilt = dict(tiny_tekken) | {"config": dict(tiny_tekken["config"])}
    keys = ["vocab", "config", "special_tokens", "multimodal", "image", "audio", "model_settings_builder"]
    place = data.draw(
        st.sampled_from([*((spoilt, key) for key in keys), *((spoilt["config"], k) for k in spoilt["config"])])
    )
    place[0][place[1]] = data.draw(JSON)
    path = tmp_path_factory.mktemp("tekken") / "tekken.json"
    path.write_text(json.dumps(spoilt))
    load_and_use(path)
    shutil.rmtree(path.parent)


@given(edits=EDITS)
@settings(max_examples=40, deadline=None)
def test_a_damaged_sentencepiece_file(
    edits: list[tuple[float, int, bytes]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("sentencepiece") / "tokenizer.model"
    path.write_bytes(damage((DATA / "tokenizer.model.v1").read_bytes(), edits))
    load_and_use(path)
    shutil.rmtree(path.parent)
