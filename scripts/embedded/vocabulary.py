"""Trains the release's tekken.json: byte-level BPE in Mistral's own file format, small because the corpus is small.

Knows the format and the control tokens; does not know what the texts are about.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
from tokenizers.trainers import BpeTrainer

TEMPLATE_VERSION = "v13"
N_SPECIAL_TOKENS = 32
CONTROL_TOKENS = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]"),
    *("[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]"),
    *("[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]", "[CALL_ID]", "[ARGS]"),
)
"""The ids of Mistral's own tekken files, in their order; the places that are left are filled by mistral-common."""

PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How tekken cuts a text into words before it merges bytes: every digit stands alone."""

_FIM_ANCHOR = "\N{WHITE SMILING FACE}".encode()
"""mistral-common encodes this before a suffix and drops two ids: it has to cost two, so its first two bytes are one."""


def train_vocabulary(texts: Iterable[str], vocab_size: int) -> dict[str, Any]:
    """tekken.json's content: `vocab_size` ids, of which the first N_SPECIAL_TOKENS are control tokens.

    Same texts, same vocabulary.
    """
    merged = _merged_pieces(texts, vocab_size - N_SPECIAL_TOKENS - 256 - 1)
    pieces = [bytes([value]) for value in range(256)] + merged + [_FIM_ANCHOR[:2]]
    if len(set(pieces)) != len(pieces):
        raise ValueError("the corpus has the fill-in-the-middle anchor in it; leave that character out")
    return {
        "config": {
            "pattern": PATTERN,
            "num_vocab_tokens": len(pieces),
            "default_vocab_size": len(pieces) + N_SPECIAL_TOKENS,
            "default_num_special_tokens": N_SPECIAL_TOKENS,
            "version": TEMPLATE_VERSION,
        },
        "vocab": [
            {"rank": rank, "token_bytes": base64.b64encode(piece).decode(), "token_str": _readable(piece)}
            for rank, piece in enumerate(pieces)
        ],
        "special_tokens": [
            {"rank": rank, "token_str": token, "is_control": True} for rank, token in enumerate(CONTROL_TOKENS)
        ],
    }


def _merged_pieces(texts: Iterable[str], n_pieces: int) -> list[bytes]:
    """The pieces that BPE makes of single bytes, in the order of their making."""
    model = Tokenizer(BPE())
    model.pre_tokenizer = Sequence(
        [Split(Regex(PATTERN), behavior="isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    alphabet = ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=256 + n_pieces, initial_alphabet=sorted(alphabet), show_progress=False)
    model.train_from_iterator(texts, trainer)
    by_id = sorted(model.get_vocab().items(), key=lambda item: item[1])
    byte_of = _bytes_of_letters()
    merged = [bytes(byte_of[letter] for letter in piece) for piece, _ in by_id if len(piece) > 1]
    if len(merged) != n_pieces:
        raise ValueError(f"the corpus yields only {len(merged)} pieces, not {n_pieces}; give more text")
    return merged


def _bytes_of_letters() -> dict[str, int]:
    """ByteLevel's letters -> their bytes: printable ones stand for themselves, the rest begin at U+0100."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [value for value in range(256) if value not in printable]
    return {chr(value): value for value in printable} | {chr(256 + n): value for n, value in enumerate(others)}


def _readable(piece: bytes) -> str | None:
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return None
