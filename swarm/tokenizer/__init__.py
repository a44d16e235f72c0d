"""Text <-> token ids of a release, chat and fill-in-the-middle templates included, exactly as mistral-common has them.

Loads the SentencePiece and tekken files that Mistral ships, and decodes a stream of ids without ever showing half a
character. The room does NOT know the model (its vocabulary may be larger than the tokenizer's), fetch files, call
tools, or look at images: messages are text. mistral_common is imported when a tokenizer is loaded, not before.
"""

from __future__ import annotations

from swarm.tokenizer.streaming import StreamDecoder
from swarm.tokenizer.tokenizer import Tokenizer, load_tokenizer

__all__ = ["StreamDecoder", "Tokenizer", "load_tokenizer"]
