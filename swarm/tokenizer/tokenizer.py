"""The Tokenizer: what the rest of the client knows of text and ids."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swarm.errors import BadArgument
from swarm.tokenizer.loading import load_raw, no_panics, with_templates
from swarm.tokenizer.streaming import SPACE_MARK, ByteLevelDecoder, SentencePieceDecoder, StreamDecoder

if TYPE_CHECKING:
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
    from mistral_common.tokens.tokenizers.sentencepiece import SentencePieceTokenizer
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

_TEXT_CHUNKS = ("text", "thinking")

_TOOL_MARKERS = ("[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]")

_FIM_ANCHOR = "\N{WHITE SMILING FACE}"
"""mistral-common encodes it before a suffix and drops two ids: what it costs in every vocabulary of Mistral's own."""


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in `path`: tekken.json, tokenizer.model or tokenizer.model.vN. Imports mistral_common (0.4 s).

    Raises: CorruptRelease if the file is missing or is not such a tokenizer.
    """
    raw = load_raw(Path(path))
    return Tokenizer(raw, with_templates(raw))


class Tokenizer:
    """Text <-> ids of one release, as mistral-common has it. Immutable, and safe to share between threads.

    version: Mistral's own, 'v1' to 'v15'. vocab_size: ids that this file knows are in [0, vocab_size); a model may emit
    more (padding, tokens that a fine-tune added), which have no text, like special ids. has_chat_template: False only
    for a file that lacks its version's special tokens. has_fim_template, has_tool_template: whether `encode_fim`, and
    `encode_chat` with tools, have the special tokens that they need.
    """

    def __init__(self, raw: SentencePieceTokenizer | Tekkenizer, templates: MistralTokenizer | None) -> None:
        self._raw = raw
        self._templates = templates
        self.version: str = raw.version.value
        self.vocab_size: int = raw.n_words
        self.bos_id: int = raw.bos_id
        self.eos_id: int = raw.eos_id
        self.has_chat_template: bool = templates is not None
        self._special_ids: frozenset[int] = frozenset(raw.special_ids)
        self.has_fim_template: bool = templates is not None and self._can_fill_in()
        self.has_tool_template: bool = (
            templates is not None and self.version != "v1" and all(raw.is_special(token) for token in _TOOL_MARKERS)
        )
        self._is_tekken = hasattr(raw, "id_to_byte_piece")
        self._pieces: list[str | bytes | None] = [] if self._is_tekken else _sentencepiece_pieces(raw)

    def encode(self, text: str, bos: bool = True) -> list[int]:
        """Plain text, no template. Text that looks like a special token stays text.

        Raises: BadArgument for text that is not Unicode (lone surrogates) or has runs that are too long for the
        tokenizer's pattern (a million spaces); CorruptRelease when the file's own pattern
        turns out to be broken on this text.
        """
        _check_text(text)
        with no_panics(), _readable():
            return self._raw.encode(text, bos=bos, eos=False)

    def decode(self, ids: Iterable[int], *, continues: bool = False) -> str:
        """The text of these ids; special and unknown ids have none. Stray bytes become replacement characters.

        continues: they go on where a prompt's text ended, so their first space stays (see SentencePieceDecoder).
        Raises: BadArgument for a negative id.
        """
        ids = list(ids)
        if continues:
            decoder = self.stream(continues=True)
            return "".join([decoder.push(token_id) for token_id in ids]) + decoder.flush()
        return self._raw.decode([self.bos_id if self.is_special(token_id) else token_id for token_id in ids])

    def stream(self, *, continues: bool = False) -> StreamDecoder:
        """A decoder for one generation: its pushes joined are `decode(all ids, continues=continues)`."""
        if self._is_tekken:
            return ByteLevelDecoder(self._bytes_of)
        return SentencePieceDecoder(self._piece_of, continues)

    def is_special(self, token_id: int) -> bool:
        """Whether this id has no text: a control token, or beyond the vocabulary. Raises: BadArgument if negative."""
        if token_id < 0:
            raise BadArgument(f"token id {token_id} is negative; ids are counted from 0")
        return token_id >= self.vocab_size or token_id in self._special_ids

    def special_id(self, token: str) -> int | None:
        """The id of a special token by its name, such as "[TOOL_CALLS]"; None where this file has none."""
        return self._raw.get_special_token(token) if self._raw.is_special(token) else None

    def byte_pieces(self) -> list[bytes | None]:
        """Per id in [0, vocab_size) the bytes that it adds to a text; None for special ids and the unknown one."""
        if self._is_tekken:
            return [self._bytes_of(token_id) for token_id in range(self.vocab_size)]
        pieces = [p.replace(SPACE_MARK, " ").encode() if isinstance(p, str) else p for p in self._pieces]
        pieces[self._raw.unk_id] = None
        return pieces

    def encode_inner(self, text: str) -> list[int]:
        """The ids of text that stands in the middle of other text: SentencePiece puts a space before it otherwise.

        Raises: BadArgument for text that is not Unicode.
        """
        if self._is_tekken:
            return self.encode(text, bos=False)
        before = self.encode(_FIM_ANCHOR, bos=False)
        return self.encode(_FIM_ANCHOR + text, bos=False)[len(before) :]

    def encode_chat(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()) -> list[int]:
        """The ids of a conversation up to where the assistant speaks, by the template of this tokenizer's version.

        messages, tools: as in the chat completions API ({"role": "user", "content": "…"}); text only. An assistant
        message with "prefix": true at the end is continued.
        Raises: BadArgument for messages that the template cannot express, or a tokenizer without one.
        """
        from mistral_common.exceptions import MistralCommonException
        from mistral_common.protocol.instruct.request import ChatCompletionRequest
        from pydantic import ValidationError

        if self._templates is None:
            raise BadArgument(f"this release's tokenizer ({self.version}) has no chat template; send a plain prompt")
        _check_messages(messages)
        for text in _texts([messages, tools]):
            _check_text(text)
        try:
            asked = {"messages": list(messages), "tools": list(tools) or None, "model": "-"}
            request: ChatCompletionRequest[Any] = ChatCompletionRequest.model_validate(asked)
            with no_panics():
                return list(self._templates.encode_chat_completion(request).tokens)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise BadArgument(f"the messages are malformed at {place}: {first['msg']}") from error
        except (MistralCommonException, ValueError) as error:
            raise BadArgument(f"the {self.version} chat template cannot express these messages: {error}") from error

    def encode_fim(self, prefix: str, suffix: str) -> list[int]:
        """The ids that ask for the text between `prefix` and `suffix`.

        Raises: BadArgument for tokenizers before v3 (v2 would send <unk> in silence), or without the special tokens.
        """
        from mistral_common.protocol.fim.request import FIMRequest

        if self._templates is None or not self.has_fim_template:
            raise BadArgument(
                f"this release's tokenizer ({self.version}) has no fill-in-the-middle template; "
                "use a code model such as Codestral, or send a plain prompt"
            )
        _check_text(prefix)
        _check_text(suffix)
        with no_panics(), _readable():
            return list(self._templates.encode_fim(FIMRequest(prompt=prefix, suffix=suffix)).tokens)

    def _can_fill_in(self) -> bool:
        """v2 has no ids for these tokens, and would take <unk> for them in silence."""
        has_tokens = self._raw.is_special("[SUFFIX]") and self._raw.is_special("[PREFIX]")
        costs_two = len(self._raw.encode(_FIM_ANCHOR, bos=False, eos=False)) == 2
        return self.version not in ("v1", "v2") and has_tokens and costs_two

    def _bytes_of(self, token_id: int) -> bytes | None:
        return None if self.is_special(token_id) else self._raw.id_to_byte_piece(token_id)  # type: ignore[union-attr]

    def _piece_of(self, token_id: int) -> str | bytes | None:
        return None if self.is_special(token_id) else self._pieces[token_id]


def _sentencepiece_pieces(raw: SentencePieceTokenizer | Tekkenizer) -> list[str | bytes | None]:
    """Per id its piece of text, its single byte, or None for control tokens, which have no text."""
    pieces: list[str | bytes | None] = []
    for token_id, piece in enumerate(raw.vocab()):
        if raw.is_special(token_id):
            pieces.append(None)
        elif re.fullmatch(r"<0x[0-9A-F]{2}>", piece):
            pieces.append(bytes([int(piece[3:5], 16)]))
        elif token_id == raw.unk_id:
            pieces.append(raw.decode([token_id]))
        else:
            pieces.append(piece)
    return pieces


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    """Raises: BadArgument where tiktoken's pattern runs out of its stack."""
    try:
        yield
    except ValueError as error:
        raise BadArgument(f"the tokenizer cannot read this text: {str(error)[:200]}; break up its long runs") from error


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadArgument(
            f"the text has half a surrogate pair at character {error.start}: it is not Unicode"
        ) from error


def _texts(value: object) -> Iterator[str]:
    """Every text in a JSON-like value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts([*value.keys(), *value.values()])
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part)


def _check_messages(messages: Sequence[Mapping[str, Any]]) -> None:
    """What mistral-common lets through: contents that it would go and fetch, and an end at which nobody can answer."""
    if not messages:
        raise BadArgument("there are no messages; the last one must be the user's")
    for message in messages:
        if not isinstance(message, Mapping):
            raise BadArgument(f'a message is {message!r:.80}; it must look like {{"role": "user", "content": "…"}}')
        content = message.get("content")
        for chunk in content if isinstance(content, list | tuple) else ():
            kind = chunk.get("type") if isinstance(chunk, Mapping) else None
            if kind not in _TEXT_CHUNKS:
                raise BadArgument(f"a message has content of type {kind!r}; this client sends text only")
    if messages[-1].get("role") == "system":
        raise BadArgument("the last message is a system message; the last one must be the user's")
