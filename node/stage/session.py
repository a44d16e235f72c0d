"""One session's state on one hop, which the event loop opens and closes and the compute thread works on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from node.model import KVCache, SpanModel
from swarm.errors import SessionLost, SwarmError
from swarm.terms import NodeId, SessionId, Span

SessionKey = tuple[NodeId, SessionId, int]
"""The client, whose alone a session is even where others know its id; the id; and the index of the hop: one node may
serve two hops of one route.
"""


@dataclass(slots=True, eq=False)
class StageSession:
    """n_hops: of its whole route. closed: no step begins on it any more. scope: of the pages that it shares, if any.

    cached_positions: found cached when it opened. known_positions: those that its client said it would feed at once.
    Whoever of the two threads is the last to need the cache gives its
    pages back: closing in the middle of a batch leaves that to the batch's end.
    """

    key: SessionKey
    epoch: int
    span: Span
    model: SpanModel
    cache: KVCache
    max_positions: int
    n_top: int
    known_positions: int = 0
    n_hops: int = 1
    scope: bytes = b""
    cached_positions: int = 0
    closed: bool = False
    _evicted: SwarmError | None = None
    _told: list[Callable[[SwarmError], None]] = field(default_factory=list)
    _is_computing: bool = False
    _turn: threading.Lock = field(default_factory=threading.Lock)

    @property
    def client(self) -> NodeId:
        return self.key[0]

    @property
    def generation(self) -> tuple[NodeId, SessionId]:
        """What it shares with the sessions of the same route's other hops."""
        return self.key[:2]

    @property
    def was_evicted(self) -> bool:
        return self._evicted is not None

    def begin(self) -> None:
        """The compute thread takes the cache in hand. Raises: SessionLost when the session is closed."""
        with self._turn:
            self.check_open()
            self._is_computing = True

    def end(self) -> None:
        """The compute thread lets go of the cache."""
        with self._turn:
            self._is_computing = False
            if self.closed:
                self.cache.clear()

    def close(self) -> None:
        """Closing twice is closing once."""
        with self._turn:
            self.closed = True
            if not self._is_computing:
                self.cache.clear()

    def evict(self, why: SwarmError) -> None:
        """Close it for a reason that its client is to hear. From any thread."""
        self.close()
        with self._turn:
            if self._evicted is None:
                self._evicted = why
            told, self._told = self._told, []
        for tell in told:
            tell(self._evicted)

    def on_evicted(self, tell: Callable[[SwarmError], None]) -> None:
        """Call this once when it is evicted, in whatever thread that is; at once when it has been."""
        with self._turn:
            why = self._evicted
            if why is None:
                self._told.append(tell)
        if why is not None:
            tell(why)

    def check_open(self) -> None:
        """Raises: why it was evicted; SessionLost when it was closed."""
        if self._evicted is not None:
            raise self._evicted
        if self.closed:
            raise SessionLost("the session was closed on this stage; open a new epoch and replay")
