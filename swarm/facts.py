"""What nodes say of themselves, and the routes made of it: plain values. Signing, expiry and transport live
elsewhere.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from swarm.errors import BadArgument
from swarm.terms import Address, ExpertRange, Infohash, NodeId, Profile, Span, id_tag


class NodeState(enum.Enum):
    JOINING = "joining"  # fetching or loading; takes sessions on the layers that are loaded
    SERVING = "serving"
    DRAINING = "draining"  # finishes its sessions; takes no new ones
    LEFT = "left"  # is gone: its last word, so that nobody waits for the one before to expire


class Reachability(enum.Enum):
    """What came of others dialling a node back at the address that it states."""

    UNKNOWN = "unknown"
    REACHABLE = "reachable"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class LayerHeat:
    """Which experts of one layer rows were routed to lately. shares: a byte per expert, 255 for all of the rows; the
    sum over the experts is about 255 times the experts per token.
    """

    layer_idx: int
    shares: bytes


@dataclass(frozen=True, slots=True)
class NodeFact:
    """One node's statement about itself, true from issued_at_s for ttl_s. Of two with one node_id the higher seq wins.

    address: where its gRPC port is dialled. torrent_port: its BitTorrent port on the same host, 0 if it has none.
    spans: hosted layers, sorted and disjoint; those of a joining node are what it is about to host.
    loaded_spans: of a joining node, the parts of `spans` that are loaded and take sessions already.
    layer_time_s: measured seconds for one token through one hosted layer, 0.0 while unknown.
    address of a node that nobody can dial: the relay's, with the node as its target. relay: that relay's id.
    relay_places: how many more nodes it would be a relay for.
    rtts: (id_tag, seconds) of the nodes nearest to it, as it measured them, nearest first.
    trunks: layers of which it hosts all but the experts, sorted, apart from spans. experts: single ones, beside those
    of the spans. loaded_trunks, loaded_experts: of a joining node. n_experts: of each layer of the model, 0 if dense.
    expert_wait_s: of a node with trunks, the measured seconds for which a batch waits at one layer for experts
    elsewhere, 0.0 while unknown. heat: of the layers whose router is here, as far as rows came.
    placed_at_s: when it chose its spans, by its own clock; 0.0 where its owner did. leaving_spans: parts of the spans
    that it is about to give up, and serves until then. throughput: tokens per second that it can take through all of
    its layers, by compute and link; 0.0 while unknown. queue_s: what a token lately waited there for its turn.
    needed_bytes / fetched_bytes: of the release, what it hosts and what this run of the node fetched for it so far.
    found_bytes: of what it hosts, what is on its machine without that: kept from earlier runs, or fetched by another
    node in its data folder. uploaded_bytes / downloaded_bytes: what all runs in that folder gave and took.
    """

    node_id: NodeId
    release: Infohash
    address: Address
    seq: int
    issued_at_s: float  # seconds since the Unix epoch, by the node's own clock
    ttl_s: float
    state: NodeState
    spans: tuple[Span, ...]
    profile: Profile
    n_layers: int  # of the whole model
    free_sessions: int = 0
    layer_time_s: float = 0.0
    torrent_port: int = 0
    needed_bytes: int = 0
    fetched_bytes: int = 0
    found_bytes: int = 0
    uploaded_bytes: int = 0
    downloaded_bytes: int = 0
    version: str = ""
    loaded_spans: tuple[Span, ...] = ()
    trunks: tuple[Span, ...] = ()
    loaded_trunks: tuple[Span, ...] = ()
    experts: tuple[ExpertRange, ...] = ()
    loaded_experts: tuple[ExpertRange, ...] = ()
    n_experts: int = 0
    expert_wait_s: float = 0.0
    heat: tuple[LayerHeat, ...] = ()
    reachability: Reachability = Reachability.UNKNOWN
    relay: NodeId | None = None
    relay_places: int = 0
    rtts: tuple[tuple[int, float], ...] = ()
    placed_at_s: float = 0.0
    leaving_spans: tuple[Span, ...] = ()
    throughput: float = 0.0
    queue_s: float = 0.0

    def __post_init__(self) -> None:
        for span in (*self.spans, *self.trunks, *[e.layers for e in self.experts]):
            if span.end > self.n_layers:
                raise BadArgument(f"node {self.node_id[:8]} claims layers beyond the model's {self.n_layers}")
        for hosted, loaded_ones in ((self.spans, self.loaded_spans), (self.trunks, self.loaded_trunks)):
            for loaded in loaded_ones:
                if not any(span.covers(loaded) for span in hosted):
                    raise BadArgument(f"node {self.node_id[:8]} says that it has loaded layers which it does not host")
        for e in (*self.experts, *self.loaded_experts):
            if e.expert_idxs[-1] >= self.n_experts:
                raise BadArgument(f"node {self.node_id[:8]} claims experts beyond the model's {self.n_experts}")

    def changed(self, **fields: object) -> NodeFact:
        """As dataclasses.replace, in a tenth of the time, for it checks nothing again: no more may be claimed then."""
        copy = object.__new__(NodeFact)
        for get, put in _SLOTS:
            put(copy, get(self))
        for name, value in fields.items():
            object.__setattr__(copy, name, value)
        return copy

    @property
    def hosts_anything(self) -> bool:
        return bool(self.spans or self.trunks or self.experts)

    @property
    def takes_sessions(self) -> bool:
        """Whether sessions may come to it at all: whoever hosts experts alone only answers the nodes that have them."""
        return bool(self.spans or self.trunks)

    @property
    def share_ratio(self) -> float | None:
        """Given by taken; None before anything was taken."""
        return self.uploaded_bytes / self.downloaded_bytes if self.downloaded_bytes else None

    @property
    def served_spans(self) -> tuple[Span, ...]:
        """The layers that a new session may have here: all hosted ones once it serves, until then the loaded ones."""
        if self.state is NodeState.SERVING:
            return self.spans
        return self.loaded_spans if self.state is NodeState.JOINING else ()

    @property
    def served_trunks(self) -> tuple[Span, ...]:
        """As served_spans; a session can have them where the experts are to be had too."""
        if self.state is NodeState.SERVING:
            return self.trunks
        return self.loaded_trunks if self.state is NodeState.JOINING else ()

    @property
    def served_experts(self) -> tuple[ExpertRange, ...]:
        """The experts that others may ask it for: single ones, and all of the layers that it serves whole.

        A node that drains answers to its end: giving up experts is what its leaving ends with, not begins with.
        """
        if self.state is NodeState.LEFT:
            return ()
        if self.state is NodeState.JOINING:
            alone, spans = self.loaded_experts, self.loaded_spans
        else:
            alone, spans = self.experts, self.spans
        everyone = tuple(range(self.n_experts))
        return (*alone, *(ExpertRange(span, everyone) for span in spans if everyone))


_SLOTS = [(slot.__get__, slot.__set__) for slot in (getattr(NodeFact, name.name) for name in fields(NodeFact))]


@dataclass(frozen=True, slots=True)
class SignedFact:
    """A NodeFact as its issuer serialised it (payload) and the issuer's ed25519 signature over exactly those bytes."""

    fact: NodeFact
    payload: bytes
    signature: bytes


MAX_TAG = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Known:
    """What one side of an exchange knows already: the seq of each node that it knows of those tagged first to last.

    By default nothing, of all nodes.
    """

    first: int = 0
    last: int = MAX_TAG
    seqs: Mapping[int, int] = field(default_factory=dict)

    def lacks(self, fact: NodeFact) -> bool:
        """Whether this fact, or a newer one of its node, is missing there."""
        tag = id_tag(fact.node_id)
        return self.first <= tag <= self.last and fact.seq > self.seqs.get(tag, -1)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a node gave in an exchange: its facts, unchecked. more: there are others, for who asks again.

    rtt_s: from asking to the answer's last byte: never less than the way there and back.
    """

    node_id: NodeId
    facts: Sequence[SignedFact]
    more: bool
    rtt_s: float


@dataclass(frozen=True, slots=True)
class Hop:
    """One stage of a route: this node computes these layers (all of them among those that it hosts)."""

    node_id: NodeId
    address: Address
    span: Span


@dataclass(frozen=True, slots=True)
class Route:
    """Ordered hops whose spans join up to the whole model, all of one profile."""

    hops: tuple[Hop, ...]
    profile: Profile

    def __post_init__(self) -> None:
        if not self.hops or self.hops[0].span.start != 0:
            raise BadArgument("a route starts at layer 0")
        for a, b in zip(self.hops, self.hops[1:], strict=False):
            if a.span.end != b.span.start:
                raise BadArgument(f"a route has no gaps: {a.span} is followed by {b.span}")

    @property
    def n_layers(self) -> int:
        return self.hops[-1].span.end

    def __str__(self) -> str:
        return " -> ".join(f"{hop.node_id[:8]}[{hop.span}]" for hop in self.hops)
