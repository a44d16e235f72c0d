"""One session's state on one hop, which the event loop opens and closes and the compute thread works on."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from node.model import KVCache, SpanModel
from swarm.errors import SessionLost
from swarm.terms import NodeId, SessionId, Span

SessionKey = tuple[NodeId, SessionId, int]
"""The client, whose alone a session is even where others know its id; the id; and the index of the hop: one node may
serve two hops of one route.
"""


@dataclass(slots=True, eq=False)
class StageSession:
    """n_hops: of its whole route. closed: no step begins on it any more. scope: of the pages that it shares, if any.

    cached_positions: found cached when it opened. Whoever of the two threads is the last to need the cache gives its
    pages back: closing in the middle of a batch leaves that to the batch's end.
    """

    key: SessionKey
    epoch: int
    span: Span
    model: SpanModel
    cache: KVCache
    max_positions: int
    n_top: int
    reserved_bytes: int
    n_hops: int = 1
    scope: bytes = b""
    cached_positions: int = 0
    closed: bool = False
    _is_computing: bool = False
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def begin(self) -> None:
        """The compute thread takes the cache in hand. Raises: SessionLost when the session is closed."""
        with self._turn:
            if self.closed:
                raise SessionLost("the session was closed on this stage; open a new epoch and replay")
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
