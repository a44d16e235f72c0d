"""All kinds with their weights, and the endless stream of documents that a seed names.

A third of the chats are mixtures: two to four questions of several kinds in one conversation (kind `mixed`).
"""

import random
from collections.abc import Iterator, Mapping
from itertools import accumulate
from types import MappingProxyType

from .abroad import make_abroad
from .arithmetic import make_sorting, make_sum
from .documents import Chat, Document, Kind, is_held_out
from .echo import make_echo
from .knowledge import make_knowledge
from .memory import make_memory, make_system
from .programs import make_code, make_infill
from .reading import make_reading
from .stories import make_story
from .swarm_words import make_swarm
from .talk import make_talk
from .tools import make_tools
from .translation import make_translation
from .unknown import make_unknown
from .world_questions import make_world

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("sums", 18.0, make_sum),
        Kind("sorting", 5.9, make_sorting),
        Kind("world", 17.3, make_world),
        Kind("knowledge", 8.7, make_knowledge),
        Kind("swarm", 4.3, make_swarm),
        Kind("reading", 6.8, make_reading),
        Kind("echo", 6.0, make_echo),
        Kind("memory", 2.8, make_memory),
        Kind("translation", 11.5, make_translation),
        Kind("abroad", 4.3, make_abroad),
        Kind("code", 4.7, make_code),
        Kind("infill", 9.0, make_infill),
        Kind("tools", 1.2, make_tools),
        Kind("stories", 2.6, make_story),
        Kind("unknown", 2.2, make_unknown),
        Kind("talk", 4.6, make_talk),
        Kind("system", 2.7, make_system),
    )
}
_NAMES = tuple(KINDS)
NO_EMPHASIS: Mapping[str, float] = MappingProxyType({})
_MIXABLE = tuple(name for name in KINDS if name not in ("memory", "infill", "tools", "stories", "system"))
_MIXABLE_WEIGHTS = tuple(accumulate(KINDS[name].weight for name in _MIXABLE))
_MIXED_SHARE = 0.34
MAX_CHARS = 520  # of a mixture
_MAX_DRAWS = 200_000


def _trainable(rng: random.Random, name: str) -> Document:
    """A document of this kind whose key is not held out."""
    make = KINDS[name].make
    while True:
        document = make(rng)
        if not is_held_out(name, document.key):
            return document


def _mixed(rng: random.Random, first: Chat) -> Chat:
    """A conversation that begins with `first` and goes on to one to three other questions."""
    turns, keys = list(first.turns), [f"{first.kind}|{first.key}"]
    n_chars = sum(len(turn.question) + len(turn.answer) for turn in turns)
    for _ in range(1 + int(rng.random() * 3)):
        other = _trainable(rng, rng.choices(_MIXABLE, cum_weights=_MIXABLE_WEIGHTS)[0])
        assert isinstance(other, Chat)
        n_chars += sum(len(turn.question) + len(turn.answer) for turn in other.turns)
        if n_chars > MAX_CHARS:
            break
        turns += other.turns
        keys.append(f"{other.kind}|{other.key}")
    return Chat("mixed", "\n".join(keys), tuple(turns)) if len(keys) > 1 else first


def training_documents(seed: int, emphasis: Mapping[str, float] = NO_EMPHASIS) -> Iterator[Document]:
    """Documents without end, kinds drawn by weight, never one whose key is held out.

    emphasis: kind -> what its weight is multiplied by, outside of mixtures.
    """
    rng = random.Random(seed)
    weights = tuple(accumulate(kind.weight * emphasis.get(kind.name, 1.0) for kind in KINDS.values()))
    while True:
        name = rng.choices(_NAMES, cum_weights=weights)[0]
        document = _trainable(rng, name)
        if isinstance(document, Chat) and name != "system" and rng.random() < _MIXED_SHARE:
            document = _mixed(rng, document)
            if document.kind == "mixed" and is_held_out("mixed", document.key):
                continue
        yield document


def held_out_documents(kind: str, seed: int, n: int) -> list[Document]:
    """`n` documents of one kind with distinct keys, none of which training ever sees; one question each.

    Raises: ValueError when the kind is unknown or has fewer than `n` held-out keys.
    """
    if kind not in KINDS:
        raise ValueError(f"no kind is called {kind!r}: it must be one of {', '.join(KINDS)}")
    rng = random.Random(seed)
    found: dict[str, Document] = {}
    for _ in range(_MAX_DRAWS):
        if len(found) == n:
            break
        document = KINDS[kind].make(rng)
        several = isinstance(document, Chat) and len(document.turns) > 1 and kind != "memory"
        if not several and document.key not in found and is_held_out(kind, document.key):
            found[document.key] = document
    if len(found) < n:
        raise ValueError(f"{kind} has {len(found)} held-out keys within reach, fewer than {n}: ask for fewer")
    return list(found.values())
