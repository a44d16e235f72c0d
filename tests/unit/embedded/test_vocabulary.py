"""The vocabulary is one that mistral-common loads, templates and all, and loses no text."""

from __future__ import annotations

import json
from itertools import islice

import pytest
from embedded.corpus import training_documents
from embedded.rendering import texts_of
from embedded.vocabulary import CONTROL_TOKENS, train_vocabulary
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.embedded import release_folder
from swarm.tokenizer import Tokenizer, load_tokenizer


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [text for document in islice(training_documents(1), 1_500) for text in texts_of(document)]


@pytest.fixture(scope="module")
def tokenizer(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("vocabulary") / "tekken.json"
    path.write_text(json.dumps(train_vocabulary(texts, 700)))
    return load_tokenizer(path)


def test_the_same_texts_make_the_same_vocabulary(texts: list[str]) -> None:
    assert train_vocabulary(texts, 700) == train_vocabulary(texts, 700)


def test_it_has_the_size_asked_for_and_mistrals_control_tokens(tokenizer: Tokenizer) -> None:
    assert tokenizer.vocab_size == 700
    assert (tokenizer.version, tokenizer.bos_id, tokenizer.eos_id) == ("v13", 1, 2)
    assert tokenizer.has_chat_template
    prompt = tokenizer.encode_chat([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}])
    marks = [CONTROL_TOKENS[token_id] for token_id in prompt if token_id < len(CONTROL_TOKENS)]
    assert marks == ["<s>", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[INST]", "[/INST]"]


@settings(max_examples=100, deadline=None)
@given(prefix=st.text(max_size=20), suffix=st.text(max_size=20))
def test_the_anchor_of_a_suffix_costs_two_ids(tokenizer: Tokenizer, prefix: str, suffix: str) -> None:
    """mistral-common drops two ids before a suffix: neither a byte of the suffix nor a rest of the anchor may go."""
    ids = tokenizer.encode_fim(prefix, suffix)
    at = ids.index(CONTROL_TOKENS.index("[PREFIX]"))
    assert ids[:2] == [tokenizer.bos_id, CONTROL_TOKENS.index("[SUFFIX]")]
    assert tokenizer.decode(ids[2:at]) == suffix
    assert tokenizer.decode(ids[at + 1 :]) == prefix


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_no_text_is_lost(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_digits_stand_alone_and_usual_words_are_one_piece() -> None:
    tokenizer = load_tokenizer(release_folder() / "tekken.json")
    assert len(tokenizer.encode("4711", bos=False)) == 4
    assert len(tokenizer.encode(" magnet", bos=False)) == 1


def test_too_little_text_is_an_error() -> None:
    with pytest.raises(ValueError, match="only"):
        train_vocabulary(["ab"], 2_048)
    with pytest.raises(ValueError, match="anchor"):
        train_vocabulary(["\u2618\u2619" * 50], 32 + 256 + 1 + 3)
