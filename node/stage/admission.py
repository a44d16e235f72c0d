"""Which sessions a stage takes, and which it sends away when there is no more memory.

A session is admitted by what it will probably need: pages for what its client feeds at once and for as much of an
answer as sessions lately had. It takes pages as it grows. Those that grow beyond what there is make younger ones give
way, which their clients then replay elsewhere or later. Orphans keep nobody out, and give way first. See shares.py for
the rules.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import replace

from node.model import PAGE, PagePool
from node.stage.config import StageConfig
from node.stage.session import SessionKey, StageSession
from node.stage.shares import YIELDING_IDLE_S, Tenant, may_have, who_yields
from swarm.errors import StageFull
from swarm.terms import NodeId, counted

ADMITTED_EIGHTHS = 7
"""Of the budget, what sessions may be admitted to; the rest is for those that grow further than was likely."""

ASKED_LATELY_S = 5.0
"""How long a client that was refused counts among those that want something."""

MAX_REFUSED_CLIENTS = 256

LEAST_RETRY_S, MOST_RETRY_S = 0.2, 10.0


class Admission:
    """The open sessions of one stage. From any thread.

    size_bytes: (session, positions) -> the most memory of a cache of so many. seconds_per_row: as measured.
    """

    def __init__(
        self,
        config: StageConfig,
        pool: PagePool,
        size_bytes: Callable[[StageSession, int], int],
        seconds_per_row: Callable[[], float],
    ) -> None:
        self._config = config
        self._pool = pool
        self._size_bytes = size_bytes
        self._seconds_per_row = seconds_per_row
        self._lock = threading.Lock()
        self._places: dict[SessionKey, _Place] = {}
        self._n_admitted = 0
        self._usual_growth = float(PAGE)  # positions that a session came to have beyond what it was fed at first
        self._usual_positions = 2048.0  # that a session had when it ended
        self._usual_s = 1.0  # how long a session stays
        self._refused: dict[NodeId, float] = {}  # by whom, when it stops counting
        self._going: list[_Place] = []  # those that would make room for who asks now

    def __len__(self) -> int:
        return len(self._places)

    def get(self, key: SessionKey) -> StageSession | None:
        place = self._places.get(key)
        return None if place is None else place.session

    def sessions(self) -> list[StageSession]:
        with self._lock:
            return [place.session for place in self._places.values()]

    def admit(self, session: StageSession) -> None:
        """Count it in. The pages that it begins with are held already. Raises: StageFull."""
        with self._lock:
            now_s = time.monotonic()
            place = _Place(session, self._n_admitted, now_s, self._likely_bytes(session))
            try:
                self._require_whole(session)
                self._require_place(place, now_s)
            except StageFull:
                self._refused.pop(session.client, None)
                self._refused[session.client] = now_s + ASKED_LATELY_S
                while len(self._refused) > MAX_REFUSED_CLIENTS:
                    del self._refused[next(iter(self._refused))]
                raise
            self._refused.pop(session.client, None)
            self._n_admitted += 1
            self._places[session.key] = place

    def leave(self, session: StageSession) -> None:
        """It is closed. Leaving twice is leaving once."""
        with self._lock:
            place = self._places.get(session.key)
            if place is None or place.session is not session:
                return
            del self._places[session.key]
            if place.most_positions and not session.was_evicted and not session.orphaned:
                stayed_s = time.monotonic() - place.since_s
                self._usual_s += (stayed_s - self._usual_s) / 16
                self._usual_positions += (place.most_positions - self._usual_positions) / 16
                growth = place.most_positions - session.known_positions
                self._usual_growth += (max(0, growth) - self._usual_growth) / 16

    def promise(self, session: StageSession, end: int) -> None:
        """Its client brings more rows of a prompt than it said. Raises: StageFull when too many wait already."""
        with self._lock:
            self._require_rows(session.client, end - session.known_positions, self._clients(time.monotonic()))
            session.known_positions = end

    def touch(self, session: StageSession, n_asked: int) -> None:
        """n_asked: 1 as a step of it begins to wait, -1 as it is done."""
        with self._lock:
            place = self._places.get(session.key)
            if place is not None and place.session is session:
                place.n_waiting += n_asked
                place.last_s = time.monotonic()
                place.most_positions = max(place.most_positions, session.cache.length)

    def make_room(self, asker: StageSession, in_hand: Collection[StageSession] = ()) -> StageSession:
        """Send a session away because asker needs a page and there is none -> that session.

        in_hand: those whose pages the caller can give back at once; others that are being computed keep theirs.
        Raises: StageFull when asker itself is the one that must go.
        """
        with self._lock:
            now_s = time.monotonic()
            tenants = {}
            for place in self._places.values():
                tenant = place.tenant(now_s)
                if place.session.is_computing and not any(place.session is session for session in in_hand):
                    tenant = replace(tenant, held_bytes=0)
                tenants[tenant] = place.session
            yielding = who_yields(tuple(tenants))
            victim = tenants[yielding] if yielding is not None else asker
            why = self._full("the KV cache is full, and older sessions need it")
        if victim is asker:
            raise why
        victim.evict(why)
        self.leave(victim)
        return victim

    @property
    def usual_positions(self) -> int:
        """What sessions lately came to have."""
        return max(1, int(self._usual_positions))

    def room_for(self, size_bytes: int) -> int:
        """How many sessions of such a size, or of an eighth of the cache, somebody might open who has none."""
        size_bytes = max(1, min(size_bytes, self._config.cache_budget_bytes // 8))
        with self._lock:
            if self._waiting_rows() >= self._config.max_waiting_rows:
                return 0
            by_memory = (self._admitted_bytes - self._promised_bytes()) // size_bytes
            return max(0, min(self._config.max_sessions - len(self._active()), by_memory))

    # -- what must hold, under the lock --------------------------------------------------------------------------

    def _require_whole(self, session: StageSession) -> None:
        """The session, and what belongs to it on other hops here, fits in an empty cache: it may be the last one."""
        whole_bytes = self._size_bytes(session, session.max_positions)
        for place in self._active():
            if place.session.generation == session.generation:
                whole_bytes += self._size_bytes(place.session, place.session.max_positions)
        if whole_bytes > self._config.cache_budget_bytes:
            raise StageFull(
                f"a cache of {session.max_positions} positions can need {whole_bytes} bytes, and all sessions together "
                f"have {self._config.cache_budget_bytes}: ask for fewer tokens, or raise the node's --cache-budget",
                retry_after_s=MOST_RETRY_S,
            )

    def _require_place(self, new: _Place, now_s: float) -> None:
        """As _require_share, but that those which stand still go for it: as few as it takes, and none in vain."""
        refusal: StageFull | None = None
        try:
            while True:
                try:
                    self._require_share(new, now_s)
                    break
                except StageFull as full:
                    refusal = refusal or full
                idle = self._idle(now_s)
                if idle is None:
                    raise refusal
                self._going.append(idle)
        finally:
            going, self._going = self._going, []
        for place in going:
            place.session.evict(self._full("the session stood still, and others need its memory"))
            del self._places[place.session.key]

    def _require_share(self, new: _Place, now_s: float) -> None:
        clients = self._clients(now_s) | {new.session.client}
        active = self._active()
        mine = [place for place in active if place.session.client == new.session.client]
        n_sessions, most = len(active), self._config.max_sessions
        if not may_have(1, mine=len(mine), used=n_sessions, limit=most, n_clients=len(clients)):
            raise self._full(
                f"{n_sessions} of {counted(most, 'session')} that this node takes are open, {len(mine)} of them yours"
            )
        self._require_rows(new.session.client, new.waiting_rows, clients)
        used = self._promised_bytes()
        limit = self._admitted_bytes if active else self._config.cache_budget_bytes
        held = sum(place.session.cache.size_bytes + place.missing_bytes for place in mine)
        if not may_have(new.missing_bytes, mine=held, used=used, limit=limit, n_clients=len(clients)):
            raise self._full(
                f"the session needs {new.missing_bytes} bytes of cache to begin with; {used} of "
                f"{self._config.cache_budget_bytes} are promised: try later, or raise the node's --cache-budget"
            )

    def _require_rows(self, client: NodeId, n_rows: int, clients: set[NodeId]) -> None:
        used = self._waiting_rows()
        mine = sum(place.waiting_rows for place in self._active() if place.session.client == client)
        limit = self._config.max_waiting_rows
        if used and not may_have(n_rows, mine=mine, used=used, limit=limit, n_clients=len(clients | {client})):
            raise StageFull(
                f"{used} tokens of prompts wait here already, and at most {limit} may",
                retry_after_s=min(MOST_RETRY_S, max(LEAST_RETRY_S, used * self._seconds_per_row())),
            )

    def _idle(self, now_s: float) -> _Place | None:
        """Who stood still for longest, of those that stay."""
        tenants = {place.tenant(now_s): place for place in self._active()}
        idle = who_yields(tuple(tenants), idle_only=True)
        return None if idle is None else tenants[idle]

    def _active(self) -> list[_Place]:
        places = self._places.values()
        return [place for place in places if not place.session.orphaned and place not in self._going]

    @property
    def _admitted_bytes(self) -> int:
        return self._config.cache_budget_bytes * ADMITTED_EIGHTHS // 8

    def _promised_bytes(self) -> int:
        yielding = (place for place in self._places.values() if place.session.orphaned or place in self._going)
        given_back = sum(place.session.cache.size_bytes for place in yielding)
        return max(0, self._pool.held_bytes - given_back) + sum(place.missing_bytes for place in self._active())

    def _waiting_rows(self) -> int:
        return sum(place.waiting_rows for place in self._active())

    def _likely_bytes(self, session: StageSession) -> int:
        positions = min(session.max_positions, session.known_positions + int(self._usual_growth))
        return self._size_bytes(session, max(1, positions))

    def _clients(self, now_s: float) -> set[NodeId]:
        """Those that have sessions here, and those that lately got none."""
        self._refused = {client: until_s for client, until_s in self._refused.items() if until_s > now_s}
        return {place.session.client for place in self._active()} | set(self._refused)

    def _full(self, why: str) -> StageFull:
        """Come back when a session has probably ended."""
        next_s = self._usual_s / max(1, len(self._places))
        return StageFull(why, retry_after_s=min(MOST_RETRY_S, max(LEAST_RETRY_S, next_s)))


class _Place:
    """What is known of an admitted session beside itself."""

    __slots__ = ("last_s", "likely_bytes", "most_positions", "n_waiting", "nth", "session", "since_s")

    def __init__(self, session: StageSession, nth: int, now_s: float, likely_bytes: int) -> None:
        self.session = session
        self.nth = nth
        self.since_s = self.last_s = now_s
        self.likely_bytes = likely_bytes
        self.n_waiting = 0
        self.most_positions = 0

    @property
    def missing_bytes(self) -> int:
        """What it will probably still take."""
        return max(0, self.likely_bytes - self.session.cache.size_bytes)

    @property
    def waiting_rows(self) -> int:
        """Of its prompt, those that are to be computed yet."""
        return max(0, self.session.known_positions - max(self.most_positions, self.session.cache.length))

    def tenant(self, now_s: float) -> Tenant:
        session = self.session
        idle_s = 0.0 if self.n_waiting else now_s - self.last_s
        if session.orphaned:
            idle_s += YIELDING_IDLE_S
        return Tenant(session.client, session.generation, self.nth, session.cache.size_bytes, idle_s)
