"""One session's state on one hop, which the event loop opens and closes and the compute thread works on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from torch import Tensor

from node.model import PAGE, KVCache, SpanModel
from node.stage.trail import Trail
from swarm.errors import SessionLost, StaleEpoch, SwarmError
from swarm.messages import Step
from swarm.terms import NodeId, SessionId, Span

SessionKey = tuple[NodeId, SessionId, int]
"""The client, whose alone a session is even where others know its id; the id; and the first layer of the hop: one node
may serve two hops of one route.
"""


@dataclass(slots=True, eq=False)
class StageSession:
    """n_hops: of its whole route. closed: no step begins on it any more. scope: of the pages that it shares, if any.

    epoch: the newest one; a step of another is refused, wherever it waits. orphaned: the stream of that epoch broke,
    and a later one may go on with what is cached. cached_positions: those that the epoch began with. known_positions:
    those that its client said it would feed at once. Whoever of the two threads is the last to need the cache gives its
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
    orphaned: bool = False
    _evicted: SwarmError | None = None
    _told: Callable[[SwarmError], None] | None = None
    _trail: Trail = field(default_factory=Trail)
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

    @property
    def is_computing(self) -> bool:
        """Whether a batch has its cache in hand: it keeps its pages until that ends."""
        return self._is_computing

    # -- the compute thread --------------------------------------------------------------------------------------

    def begin(self, epoch: int) -> None:
        """Take the cache in hand for a step of this epoch. Raises: SessionLost, StaleEpoch."""
        with self._turn:
            self.check_open(epoch)
            self._is_computing = True

    def end(self) -> None:
        """Let go of the cache."""
        with self._turn:
            self._is_computing = False
            if self.closed:
                self.cache.clear()

    def rewind(self, epoch: int, position: int) -> None:
        """A step of this epoch begins here. Raises: PositionMismatch, SessionLost, StaleEpoch."""
        with self._turn:
            self.check_open(epoch)  # it may have been renewed since it was taken in hand
            self.cache.truncate(position)
            self._trail.rewind(position)

    def note(self, step: Step) -> None:
        """This step is done, and its rows are kept."""
        with self._turn:
            self._trail.add(step.position + step.n_rows, step.page_hashes if self.scope else ())

    # -- the event loop ------------------------------------------------------------------------------------------

    def start_with(self, page_hashes: tuple[bytes, ...]) -> None:
        """It begins with these pages, found cached."""
        for nth, page_hash in enumerate(page_hashes, 1):
            self._trail.add(nth * PAGE, (page_hash,))
        self.cached_positions = self._trail.length

    def renew(self, epoch: int, n_top: int, n_hops: int, scope: bytes, fed_positions: int) -> int:
        """Go on as a later epoch with what is cached of the first fed_positions -> how much that is.

        Steps of the earlier epoch that still wait are refused; one that is being computed ends behind what is kept, and
        the next one overwrites it. Pages have names only for sessions that come along the same hops: where the route to
        here is another now, this session names none any more.
        """
        with self._turn:
            self.epoch, self.n_top, self.n_hops, self.orphaned = epoch, n_top, n_hops, False
            if scope != self.scope:
                self.scope = b""
            self.cached_positions = min(fed_positions, self._trail.length)
            return self.cached_positions

    @property
    def length(self) -> int:
        """Positions of the steps that are done."""
        with self._turn:
            return self._trail.length

    def kept(
        self, epoch: int, start: int, end: int, most: int | None
    ) -> Iterator[tuple[int, Tensor, tuple[bytes, ...]]]:
        """The rows of positions [start, end) as the steps that made them: (position, (T, D), hashes of the pages that
        they fill). most: rows at once, where the steps need not be the same.

        Raises: SessionLost, StaleEpoch, between two of them as well.
        """
        with self._turn:
            chunks = list(self._trail.chunks(start, end, most))
        for first, last in chunks:
            with self._turn:
                self.check_open(epoch)
                names = self._trail.names(first, last) if self.scope else ()
                rows = self.cache.rows(first, last)
            yield first, rows, names

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
            why = self._evicted = self._evicted or why
            tell, self._told = self._told, None
        if tell is not None:
            tell(why)

    def on_evicted(self, epoch: int, tell: Callable[[SwarmError], None]) -> None:
        """Call this, and no earlier one, when it is evicted, in whatever thread that is; at once when it has been.

        An epoch that a later one took over hears of nothing, and takes the later one's notice from nobody.
        """
        with self._turn:
            if epoch != self.epoch:
                return
            why = self._evicted
            self._told = tell if why is None else None
        if why is not None:
            tell(why)

    def check_open(self, epoch: int) -> None:
        """Raises: why it was evicted; SessionLost; StaleEpoch."""
        if self._evicted is not None:
            raise self._evicted
        if self.closed or self.orphaned:
            raise SessionLost("the session was closed on this stage; open a new epoch and replay")
        if epoch != self.epoch:
            raise StaleEpoch(f"a step of epoch {epoch} came into epoch {self.epoch}")
