"""What this node says of itself: one fact, signed anew whenever it changed or has lived a third of its time."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from node.experts import Dispatcher
from node.hosting import FetchProgress, Holding
from node.model import ExpertStore
from node.server.relay import RelayConfig, RelayHandler
from node.stage import Stage
from swarm.client.reach import Reach
from swarm.discovery import Discovery, sign_fact
from swarm.facts import LayerHeat, NodeFact, NodeState, SignedFact
from swarm.identity import NodeKey
from swarm.terms import Address, ExpertId, Infohash, NodeId, Profile, Span, merge_experts
from swarm.wire import MAX_RTTS

LEAST_WAIT_S = 0.002
"""Waits that differ by less are the same to everybody."""

LOAD_INTERVAL_S = 1.0
"""How often a changed load is told anew at most."""


MAX_HEAT_EXPERTS = 1024
"""Of how many experts a fact tells the heat: those of the first layers."""


@dataclass(frozen=True, slots=True)
class _Said:
    signed: SignedFact
    at_s: float


class Statement:
    """The state of a node as its fact tells it. Set the attributes as the node comes to know them, then withdraw().

    reach: where others dial it. relay: what it is to others as a relay.

    n_layers, n_experts: of the whole model. n_layers is 0 until the config is read, and so long there is nothing to
    tell. placed_at_s: when the spans were claimed, 0.0 where the owner named them. max_tokens_per_s: what the link
    passes on. uploaded_bytes, downloaded_bytes: of the release, over all runs in this data folder.
    """

    def __init__(
        self, key: NodeKey, release: Infohash, address: Address, torrent_port: int, profile: Profile, version: str
    ) -> None:
        self.reach = Reach(address)
        self.discovery: Discovery | None = None
        self.relay = RelayHandler(RelayConfig(rate=0))
        self.profile = profile
        self.state = NodeState.JOINING
        self.n_layers = 0
        self.n_experts = 0
        self.spans: tuple[Span, ...] = ()
        self.trunks: tuple[Span, ...] = ()
        self.experts: tuple[ExpertId, ...] = ()
        self.loaded: tuple[Span, ...] = ()
        self.store: ExpertStore | None = None
        self.dispatcher: Dispatcher | None = None
        self.progress: FetchProgress | None = None
        self.stage: Stage | None = None
        self.placed_at_s = 0.0
        self.leaving: tuple[Span, ...] = ()
        self.max_tokens_per_s = math.inf
        self.uploaded_bytes = 0
        self.downloaded_bytes = 0
        self._key = key
        self.release = release
        self._torrent_port = torrent_port
        self.version = version
        self._said: _Said | None = None
        self._seq = int(time.time() * 1000)

    @property
    def node_id(self) -> NodeId:
        return self._key.node_id

    def signed(self, ttl_s: float) -> SignedFact | None:
        """The newest fact, in force for ttl_s from when it was last signed; None before there is one."""
        if self.n_layers == 0:
            return None
        said = self._said
        if said is None or time.monotonic() - said.at_s > ttl_s / 3 or self._load_changed(said):
            self._seq = max(self._seq + 1, int(time.time() * 1000))
            said = self._said = _Said(sign_fact(self._key, self._fact(ttl_s)), time.monotonic())
        return said.signed

    @property
    def holding(self) -> Holding:
        return Holding(self.spans, self.trunks, self.experts)

    def hold(self, holding: Holding) -> None:
        self.spans, self.trunks, self.experts = holding.spans, holding.trunks, holding.experts

    def gave(self, uploaded_bytes: int, downloaded_bytes: int) -> None:
        """So much to others, and took so much from them."""
        self.uploaded_bytes, self.downloaded_bytes = uploaded_bytes, downloaded_bytes
        self.withdraw()

    def withdraw(self) -> None:
        """Something changed: the next fact is a new one."""
        self._said = None

    def _load_changed(self, said: _Said) -> bool:
        """Whether it is full or has room again; or, a second on, whether sessions wait clearly more or less for it."""
        if self.stage is None:
            return False
        fact, wait_s = said.signed.fact, self.stage.queue.wait_s
        differs = abs(wait_s - fact.queue_s) > max(LEAST_WAIT_S, 0.5 * max(wait_s, fact.queue_s))
        is_due = time.monotonic() - said.at_s > LOAD_INTERVAL_S
        return (self.stage.free_sessions == 0) != (fact.free_sessions == 0) or (differs and is_due)

    def _fact(self, ttl_s: float) -> NodeFact:
        return NodeFact(
            node_id=self.node_id,
            release=self.release,
            address=self.reach.address,
            reachability=self.reach.reachability,
            relay=self.reach.relay,
            seq=self._seq,
            issued_at_s=time.time(),
            ttl_s=ttl_s,
            state=self.state,
            spans=self.spans,
            trunks=self.trunks,
            experts=merge_experts(self.experts),
            profile=self.profile,
            n_layers=self.n_layers,
            torrent_port=self._torrent_port,
            version=self.version,
            n_experts=self.n_experts,
            **(self._loaded() if self.state is NodeState.JOINING else {}),
            placed_at_s=self.placed_at_s,
            leaving_spans=self.leaving,
            uploaded_bytes=self.uploaded_bytes,
            downloaded_bytes=self.downloaded_bytes,
            **self._measured(),
        )

    def _loaded(self) -> dict[str, Any]:
        experts = self.store.ids.intersection(self.experts) if self.store is not None else ()
        return {
            "loaded_spans": self.holding.whole_among(self.loaded),
            "loaded_trunks": self.holding.trunks_among(self.loaded),
            "loaded_experts": merge_experts(experts),
        }

    def _measured(self) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        if self.discovery is not None:
            fields["rtts"] = self.discovery.nearest(MAX_RTTS)
        if not self.reach.address.target:
            fields["relay_places"] = self.relay.n_free_places
        if self.stage is not None:
            layer_time_s, n_layers = self.stage.layer_time_s, sum(map(len, self.holding.stages))
            fields |= {"free_sessions": self.stage.free_sessions, "layer_time_s": layer_time_s}
            fields["queue_s"] = self.stage.queue.wait_s
            if layer_time_s and n_layers:
                fields["throughput"] = min(1.0 / (layer_time_s * n_layers), self.max_tokens_per_s)
            fields["heat"] = told_heat(self.stage.heat())
        if self.dispatcher is not None:
            fields["expert_wait_s"] = self.dispatcher.wait_s
        if self.progress is not None:
            fields |= {"needed_bytes": self.progress.needed_bytes, "fetched_bytes": self.progress.fetched_bytes}
            fields["found_bytes"] = self.progress.found_bytes
        return fields


def told_heat(shares: Mapping[int, Sequence[float]]) -> tuple[LayerHeat, ...]:
    """By layer, each expert's share of its rows -> as a fact tells it."""
    told: list[LayerHeat] = []
    for layer_idx, of_layer in sorted(shares.items()):
        if (len(told) + 1) * len(of_layer) <= MAX_HEAT_EXPERTS:
            told.append(LayerHeat(layer_idx, bytes(round(255 * share) for share in of_layer)))
    return tuple(told)
