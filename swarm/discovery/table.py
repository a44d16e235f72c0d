"""The newest unexpired fact of each node. Pure but for the clock that it is given."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from swarm.discovery.signing import check_fact
from swarm.errors import RemoteProtocolError, Unauthenticated
from swarm.facts import MAX_TAG, Known, NodeFact, NodeState, SignedFact
from swarm.terms import Address, Infohash, NodeId, id_tag

MAX_TTL_S = 600.0
MAX_CLOCK_SKEW_S = 120.0
"""How wrong a node's clock may be before its facts are refused. More lets a replayed old fact live longer."""

TIMES_TOLD = 3
"""How often news is pushed to others unasked: some of them know it already, and those who do not ask, in the end."""


@dataclass(slots=True)
class _Entry:
    signed: SignedFact
    fact: NodeFact  # the same, dated by this table's clock
    expires_s: float
    dead: bool = False
    confirmed: bool = False
    n_told: int = 0

    @property
    def turn(self) -> tuple[bool, float, NodeId]:
        """In the order in which facts are told: of confirmed nodes first, then the newest."""
        return not self.confirmed, -self.signed.fact.issued_at_s, self.fact.node_id


class FactTable:
    """Facts of one release, at most max_nodes of them.

    A replayed fact cannot outlive its issuer: its age counts from issued_at_s, give or take MAX_CLOCK_SKEW_S, and a seq
    that was seen before renews nothing. check: what a fact must pass, its signature unless told otherwise. An entry
    marked dead stays hidden until its node issues a newer fact.
    """

    def __init__(
        self,
        release: Infohash,
        clock: Callable[[], float],
        max_nodes: int = 10_000,
        check: Callable[[SignedFact], NodeFact] = check_fact,
    ) -> None:
        self._release = release
        self._check = check
        self._clock = clock
        self._max_nodes = max_nodes
        self._entries: dict[NodeId, _Entry] = {}
        # Kept in order, since every stranger's exchange reads them: sorting 10,000 takes longer than all else it does.
        self._ids: list[NodeId] = []
        self._tags: list[tuple[int, NodeId]] = []
        self._turns: list[tuple[bool, float, NodeId]] = []

    def add(self, signed: SignedFact) -> bool:
        """Take a fact in; True if it was news.

        Raises: Unauthenticated, RemoteProtocolError (bad signature, another release's, absurd times).
        """
        known = self._entries.get(signed.fact.node_id)
        if known is not None and signed.fact.seq <= known.signed.fact.seq and signed.payload != known.signed.payload:
            return False  # older than what is known: not worth a signature check
        if known is not None and signed.payload == known.signed.payload:
            return False
        fact = self._check(signed)
        now = self._clock()
        if fact.release != self._release:
            raise RemoteProtocolError(f"a fact of release {fact.release} was sent where {self._release} was asked for")
        if not 0 < fact.ttl_s <= MAX_TTL_S or fact.issued_at_s > now + MAX_CLOCK_SKEW_S:
            raise RemoteProtocolError(
                f"node {fact.node_id[:8]} issued a fact for {fact.ttl_s:.0f} s dated "
                f"{fact.issued_at_s - now:+.0f} s from now; facts live at most 600 s and clocks may differ by 120 s: "
                "set the machine's clock"
            )
        if fact.issued_at_s + fact.ttl_s + MAX_CLOCK_SKEW_S < now:
            return False
        if known is None and len(self._entries) >= self._max_nodes and not self._evict(now):
            return False
        confirmed = known is not None and known.confirmed and known.signed.fact.address == fact.address
        here = fact.changed(issued_at_s=now)
        entry = _Entry(SignedFact(fact, signed.payload, signed.signature), here, now + fact.ttl_s, confirmed=confirmed)
        if known is None:
            insort(self._ids, fact.node_id)
            insort(self._tags, (id_tag(fact.node_id), fact.node_id))
        else:
            _remove(self._turns, known.turn)
        insort(self._turns, entry.turn)
        self._entries[fact.node_id] = entry
        return True

    def confirm(self, node_id: NodeId) -> None:
        """The node proved its id where its fact says that it is. A confirmed node is passed on first, and never evicted
        for one that is only talked about.
        """
        entry = self._entries.get(node_id)
        if entry is not None and not entry.confirmed:
            _remove(self._turns, entry.turn)
            entry.confirmed = True
            insort(self._turns, entry.turn)

    def forget_address(self, address: Address, *, except_for: NodeId | None) -> None:
        """Hide the nodes that claim an address where they do not answer, until they issue newer facts.

        except_for: who does answer there; None when nobody does.
        """
        for node_id, entry in self._entries.items():
            if entry.signed.fact.address == address and node_id != except_for:
                entry.dead = True

    def live(self) -> tuple[NodeFact, ...]:
        """Facts in force, by node id. Their issued_at_s is rewritten to this table's clock, so skewed clocks do no
        harm.
        """
        return tuple(entry.fact for entry in self._alive(self._ids) if entry.fact.state is not NodeState.LEFT)

    def confirmed(self) -> tuple[NodeFact, ...]:
        """The live facts of nodes that proved to be where they say."""
        alive = (entry for entry in self._alive(self._ids) if entry.confirmed)
        return tuple(entry.signed.fact for entry in alive if entry.signed.fact.state is not NodeState.LEFT)

    def signed(self) -> tuple[SignedFact, ...]:
        """The facts to pass on, as their issuers signed them: of confirmed nodes first, then the newest."""
        return tuple(entry.signed for entry in self._alive(node_id for *_, node_id in self._turns))

    def news(self, limit: int) -> tuple[SignedFact, ...]:
        """Facts to tell unasked, at most TIMES_TOLD times each: of confirmed nodes first, then the newest."""
        alive = self._alive(node_id for *_, node_id in self._turns)
        untold = list(islice((entry for entry in alive if entry.n_told < TIMES_TOLD), limit))
        for entry in untold:
            entry.n_told += 1
        return tuple(entry.signed for entry in untold)

    def known(self, limit: int, first: int = 0) -> Known:
        """What to tell a node that is asked, so that it leaves out what is here: of all nodes, or, where more than
        limit of them are here, of those from the tag `first` on.
        """
        now = self._clock()
        in_force = ((tag, self._entries[node_id]) for tag, node_id in self._tags)
        seqs = {tag: entry.signed.fact.seq for tag, entry in in_force if entry.expires_s > now}
        if len(seqs) <= limit:
            return Known(seqs=seqs)
        tags = list(seqs)
        tags = tags[bisect_left(tags, first) :]
        last = tags[limit] - 1 if len(tags) > limit else MAX_TAG
        return Known(first, last, {tag: seqs[tag] for tag in tags[:limit]})

    def add_all(self, facts: Iterable[SignedFact]) -> int:
        """Take in what a node passed on; how many were news. One bad fact spoils none of the others."""
        news = 0
        for signed in facts:
            try:
                news += self.add(signed)
            except (RemoteProtocolError, Unauthenticated):
                continue
        return news

    @property
    def n_nodes(self) -> int:
        """How many nodes it knows of, gone ones included."""
        return len(self._entries)

    def _alive(self, node_ids: Iterable[NodeId]) -> Iterator[_Entry]:
        """Those of these nodes whose word holds, in the order given."""
        now = self._clock()
        entries = (self._entries[node_id] for node_id in node_ids)
        return (entry for entry in entries if entry.expires_s > now and not entry.dead)

    def _evict(self, now: float) -> bool:
        """Make room: entries long past (their old facts are too old to come back), else one that is only hearsay."""
        gone = [n for n, e in self._entries.items() if e.expires_s + MAX_CLOCK_SKEW_S < now]
        gone = gone or [n for n, e in self._entries.items() if not e.confirmed][:1]
        for node_id in gone:
            _remove(self._turns, self._entries.pop(node_id).turn)
            _remove(self._ids, node_id)
            _remove(self._tags, (id_tag(node_id), node_id))
        return bool(gone)


def _remove(ordered: list[Any], item: Any) -> None:
    del ordered[bisect_left(ordered, item)]
