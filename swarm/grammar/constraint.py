"""A Grammar -> a Constraint: which token ids may come next, one generation at a time."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from swarm.errors import BadArgument
from swarm.grammar.grammar import Grammar
from swarm.grammar.sources import source_for

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer

_STEP_FUEL = 200_000  # about 15 ms
_COMPILE_FUEL = 1_000_000  # about 20 ms
_MAX_SYMBOLS = 100_000
_MAX_LEXER_STATES = 50_000  # 1 to 2 kB each


class Vocabulary(Protocol):
    """What a compiler must know of a tokenizer; `swarm.tokenizer.Tokenizer` is one."""

    version: str
    vocab_size: int
    bos_id: int
    eos_id: int

    def byte_pieces(self) -> Sequence[bytes | None]:
        """Per id the bytes of its text; None for an id that has none."""
        ...

    def special_id(self, token: str) -> int | None:
        """The id of a control token such as [TOOL_CALLS]; None when there is none."""
        ...

    def encode_inner(self, text: str) -> list[int]:
        """The ids of text that stands in the middle of other text."""
        ...


class GrammarCompiler:
    """Compiles grammars for one tokenizer and one model's vocabulary. Safe to share between threads.

    The first compile reads the whole vocabulary (0.1 s for 32,768 ids, 1 s for 131,072); every one is bounded in work
    and memory by llguidance's fuel and by `bounds`, whatever the grammar.
    """

    def __init__(self, vocabulary: Vocabulary, vocab_size: int) -> None:
        self._vocabulary = vocabulary
        self._vocab_size = vocab_size
        self._lock = threading.Lock()
        self._tokenizer: LLTokenizer | None = None

    def compile(self, grammar: Grammar) -> Constraint:
        """The constraint of one new generation.

        Raises: BadArgument, saying what in the grammar cannot be meant, kept, or compiled within bounds.
        """
        try:
            from llguidance import LLMatcher
        except ImportError:
            raise BadArgument(
                "structured output needs llguidance, which is not installed: pip install 'mistral-swarm[gateway]'"
            ) from None

        eos_id = self._vocabulary.eos_id
        if not 0 <= eos_id < self._vocab_size:
            raise BadArgument(
                f"the model has {self._vocab_size} token ids, and its tokenizer ends an answer with id {eos_id}: "
                "no grammar can be kept; leave it out, or use another release"
            )
        source = source_for(grammar, self._vocabulary)
        matcher = LLMatcher(self._ready_tokenizer(), source, log_level=0, limits=_limits())
        if matcher.is_error():
            raise BadArgument(f"the {grammar.kind} grammar cannot be used: {_reason(matcher)}")
        constraint = Constraint(matcher, grammar.kind, self._vocab_size)
        constraint.mask()  # what fails at the first token fails here
        return constraint

    def _ready_tokenizer(self) -> LLTokenizer:
        from llguidance import LLTokenizer, TokenizerWrapper

        with self._lock:
            if self._tokenizer is None:
                adapter = _Adapter(self._vocabulary, self._vocab_size)
                self._tokenizer = adapter.tokenizer = LLTokenizer(TokenizerWrapper(adapter))
            return self._tokenizer


class Constraint:
    """One generation's place in its grammar. Depends only on the grammar and the ids taken."""

    def __init__(self, matcher: LLMatcher, kind: str, vocab_size: int) -> None:
        self._matcher = matcher
        self._kind = kind
        self._vocab_size = vocab_size
        self._mask: bytes | None = None  # of the place where we are: it is asked for twice, and may take milliseconds

    def mask(self) -> bytes:
        """Bit i of byte i // 8, the lowest first, says whether id i may come next: ceil(vocab_size / 8) bytes.

        The id that ends the answer is allowed where the grammar lets it end; ids beyond the tokenizer never are. At
        least one id is allowed. Raises: BadArgument when the grammar turns out to be beyond bounds, or asks for what
        this tokenizer cannot write.
        """
        if self._mask is None:
            self._mask = self._computed_mask()
        return self._mask

    def _computed_mask(self) -> bytes:
        bits = self._matcher.compute_bitmask()
        if self._matcher.is_error():
            raise BadArgument(f"the {self._kind} grammar cannot be followed further: {_reason(self._matcher)}")
        n_bytes = (self._vocab_size + 7) // 8
        mask = bits[:n_bytes].ljust(n_bytes, b"\0")
        if self._vocab_size % 8:
            mask = mask[:-1] + bytes([mask[-1] & ((1 << self._vocab_size % 8) - 1)])
        if not any(mask):
            raise BadArgument(f"the {self._kind} grammar asks for text that this release's tokenizer cannot write")
        return mask

    def take(self, token_id: int) -> None:
        """Go on past an id that was generated. Raises: BadArgument for one that the mask does not allow."""
        self._mask = None
        if not self._matcher.consume_token(token_id):
            raise BadArgument(f"token {token_id} does not continue the {self._kind} grammar: {_reason(self._matcher)}")

    @property
    def is_finished(self) -> bool:
        """Nothing can follow but the end."""
        return self._matcher.is_stopped() and not self._matcher.is_error()


class _Adapter:
    """A Vocabulary as llguidance's TokenizerWrapper wants one."""

    def __init__(self, vocabulary: Vocabulary, vocab_size: int) -> None:
        pieces = list(vocabulary.byte_pieces())[:vocab_size]
        self.eos_token_id = vocabulary.eos_id
        self.bos_token_id = vocabulary.bos_id
        self.tokens = [f"<|{i}|>".encode() if piece is None else piece for i, piece in enumerate(pieces)]
        self.special_token_ids = [i for i, piece in enumerate(pieces) if piece is None]
        self.tokenizer: LLTokenizer | None = None
        self._vocabulary = vocabulary

    def __call__(self, text: str) -> list[int]:
        """How the model would write text that the grammar forces. It may not lose any of it."""
        ids = self._vocabulary.encode_inner(text)
        if all(i < len(self.tokens) for i in ids) and b"".join(self.tokens[i] for i in ids) == text.encode():
            return ids
        return [] if self.tokenizer is None else self.tokenizer.greedy_tokenize(text)


def _limits() -> LLParserLimits:
    from llguidance import LLParserLimits

    return LLParserLimits(
        initial_lexer_fuel=_COMPILE_FUEL,
        step_lexer_fuel=_STEP_FUEL,
        max_lexer_states=_MAX_LEXER_STATES,
        max_grammar_size=_MAX_SYMBOLS,
        verbose_errors=False,
    )


def _reason(matcher: LLMatcher) -> str:
    """The error's text, without what only llguidance's authors can read."""
    text = matcher.get_error().split("\n<", 1)[0].strip()
    return " ".join(text.split())[:500] or "no reason was given"
