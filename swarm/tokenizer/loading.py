"""A tokenizer file -> mistral-common's objects, or CorruptRelease. The file came from outside: it is not trusted."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from swarm.errors import CorruptRelease

if TYPE_CHECKING:
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
    from mistral_common.tokens.tokenizers.sentencepiece import SentencePieceTokenizer
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

MAX_TOKENIZER_BYTES = 128 * 2**20
"""Mistral's largest is 19 MB. A file is read into memory as a whole, at several times its size."""

_SPOILED = (AssertionError, AttributeError, LookupError, OSError, RecursionError, RuntimeError, TypeError, ValueError)
"""What mistral-common, json, tiktoken and sentencepiece raise for a file that is not what its name says."""


_PROBE = "".join(map(chr, range(256))) + " \r\n\n 1234 don't é 日本語 نص \N{GRINNING FACE}"


@contextlib.contextmanager
def no_panics() -> Iterator[None]:
    """Turns a panic in tiktoken into CorruptRelease: only a pattern or a vocabulary that makes no sense causes one.

    PyO3's PanicException is a BaseException that no module exports, so that it can be told by its name alone.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise CorruptRelease("the release's tekken.json makes its own tokenizer fail; use another release") from error


def load_raw(path: Path) -> SentencePieceTokenizer | Tekkenizer:
    """The tokenizer without its templates. Raises: CorruptRelease."""
    from mistral_common.exceptions import MistralCommonException

    try:
        if path.stat().st_size > MAX_TOKENIZER_BYTES:
            raise CorruptRelease(f"{path} has {path.stat().st_size} bytes; no tokenizer has over {MAX_TOKENIZER_BYTES}")
        with no_panics():
            raw = _load_tekken(path) if path.suffix == ".json" else _load_sentencepiece(path)
        if not all(0 <= token_id < raw.n_words for token_id in (raw.bos_id, raw.eos_id)):
            raise ValueError("it has no ids for the beginning and the end of a text")
        return raw
    except (MistralCommonException, *_SPOILED) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise CorruptRelease(
            f"{path} is not a tokenizer that this version reads ({reason}); verify or fetch it again"
        ) from error


def with_templates(raw: SentencePieceTokenizer | Tekkenizer) -> MistralTokenizer | None:
    """mistral-common's templates over this tokenizer; None if it lacks the special tokens that they are made of.

    Text only: image and audio encoders are left out, whatever the file says of them.
    """
    from mistral_common.protocol.instruct.normalize import get_normalizer
    from mistral_common.protocol.instruct.validator import ValidationMode, get_validator
    from mistral_common.tokens.tokenizers import instruct
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

    classes = {
        "v1": instruct.InstructTokenizerV1,
        "v2": instruct.InstructTokenizerV2,
        "v3": instruct.InstructTokenizerV3,
        "v7": instruct.InstructTokenizerV7,
        "v11": instruct.InstructTokenizerV11,
        "v13": instruct.InstructTokenizerV13,
        "v15": instruct.InstructTokenizerV15,
    }
    if raw.version.value not in classes or not all(raw.is_special(token) for token in _markers(raw.version.value)):
        return None
    if raw.version.supports_model_settings and raw.model_settings_builder is None:
        return None  # its template has to say the settings, and the file does not say which there are
    try:
        return MistralTokenizer(
            classes[raw.version.value](raw),
            validator=get_validator(raw.version, mode=ValidationMode.serving),
            request_normalizer=get_normalizer(raw.version, raw.model_settings_builder),
        )
    except ValueError:  # tekken: a special token that this version's template needs is not in the file
        return None


def _markers(version: str) -> tuple[str, ...]:
    """The special tokens around a plain conversation. SentencePiece answers <unk> for a missing one, in silence."""
    if version == "v1":
        return ()
    return ("[INST]", "[/INST]") if version in ("v2", "v3") else ("[INST]", "[/INST]", "[SYSTEM_PROMPT]")


def _load_tekken(path: Path) -> Tekkenizer:
    """A tekken tokenizer loses nothing, if its pattern (a regular expression out of the file) matches everything."""
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

    raw = Tekkenizer.from_file(path)
    if raw.decode(raw.encode(_PROBE, bos=False, eos=False)) != _PROBE:
        raise ValueError("its pattern loses text")
    return raw


def _load_sentencepiece(path: Path) -> SentencePieceTokenizer:
    """The version stands in the name (tokenizer.model.v3); a bare tokenizer.model is told by the tokens that it has."""
    from mistral_common.tokens.tokenizers.base import TokenizerVersion
    from mistral_common.tokens.tokenizers.sentencepiece import SentencePieceTokenizer

    if re.search(r"\.v\d+(m\d+)?$", path.name):
        return SentencePieceTokenizer(path)
    raw = SentencePieceTokenizer(path, tokenizer_version=TokenizerVersion.v1)
    newest = next(
        (v for v, t in (("v7", "[SYSTEM_PROMPT]"), ("v3", "[PREFIX]"), ("v2", "[INST]")) if raw.is_special(t)), "v1"
    )
    return raw if newest == "v1" else SentencePieceTokenizer(path, tokenizer_version=TokenizerVersion(newest))
