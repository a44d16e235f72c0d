"""What the swarm page shows, as JSON values: layers and their hosts, nodes, holes, and routes of running answers."""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from swarm.client import SwarmStatus
from swarm.facts import NodeFact, NodeState
from swarm.gateway.models import ModelReadiness, ModelRegistry, ServedModel, expert_words
from swarm.gateway.reachability import Reachability
from swarm.gateway.route_book import RouteBook, RouteTaken
from swarm.terms import NodeId, Span, merge_spans

STATE_SCHEMA = "swarm.state/1"

MAX_AGE_S = 1.0
"""How old the answer may be. Lower asks every node more often, for each second that somebody looks at the page."""

PATIENCE_S = 2.0
"""How long a look may take before the one before it is shown again: a node that does not answer costs seconds."""

GONE_SHOWN_S = 120.0
"""How long a node that left stays on the page."""


@dataclass(slots=True)
class _Sighting:
    """A node as it was last seen. seen_s: monotonic."""

    fact: NodeFact
    seen_s: float


@dataclass(slots=True)
class _Seen:
    """One look at everything. at_s: monotonic, when it ended."""

    readiness: tuple[ModelReadiness, ...] = ()
    at_s: float = float("-inf")
    sightings: dict[str, dict[NodeId, _Sighting]] = field(default_factory=dict)  # by model name


class SwarmState:
    """Looks at the swarms of a registry's models when asked, at most once per MAX_AGE_S. clock: monotonic seconds."""

    def __init__(
        self,
        registry: ModelRegistry,
        book: RouteBook,
        reachability: Reachability | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._book = book
        self._reachability = reachability or Reachability(clock=clock)
        self._clock = clock
        self._seen = _Seen()
        self._looking: asyncio.Task[None] | None = None

    async def fields(self) -> dict[str, Any]:
        """All that the page shows. A look that takes longer than PATIENCE_S goes on, and the last one's is told."""
        if self._looking is None or self._looking.done():
            if self._looking is not None:
                self._looking.result()  # a bug in looking is told, and not shown as an old state for ever
                self._looking = None
            if self._clock() - self._seen.at_s >= MAX_AGE_S:
                self._looking = asyncio.create_task(self._look())
        if self._looking is not None:
            await asyncio.wait((self._looking,), timeout=PATIENCE_S)
        models = {model.name: model for model in self._registry.models}
        return {
            "schema": STATE_SCHEMA,
            "age_s": round(max(0.0, min(self._clock() - self._seen.at_s, 1e6)), 2),
            "models": [self._model_fields(seen, models.get(seen.name)) for seen in self._seen.readiness],
        }

    async def _look(self) -> None:
        readiness = await self._registry.readiness()
        now_s = self._clock()
        for seen in readiness:
            if seen.status is not None:
                known = self._seen.sightings.setdefault(seen.name, {})
                known.update({fact.node_id: _Sighting(fact, now_s) for fact in seen.status.nodes})
                for node_id in [n for n, sighting in known.items() if now_s - sighting.seen_s > GONE_SHOWN_S]:
                    del known[node_id]
        self._seen.readiness = readiness
        statuses = [seen.status for seen in readiness if seen.status is not None]
        await self._reachability.refresh(fact.address for status in statuses for fact in status.nodes)
        self._seen.at_s = self._clock()

    def _model_fields(self, seen: ModelReadiness, model: ServedModel | None) -> dict[str, Any]:
        fields: dict[str, Any] = {"name": seen.name, "is_ready": seen.is_ready, "problem": seen.problem}
        if seen.status is None or model is None:
            return fields
        args, status = model.client.release.args, seen.status
        routes = self._book.running(model.name)
        missing = merge_spans([Span(layer_idx, layer_idx + 1) for layer_idx in status.missing_layers])
        network = "" if self._registry.network == "wan" else f" --network {self._registry.network}"
        options = network + (status.mending_options and f" {status.mending_options}")
        return fields | {
            "infohash": status.infohash,
            "n_layers": status.n_layers,
            "n_experts": args.n_experts,
            "n_experts_per_tok": args.n_experts_per_tok,
            "n_params": args.n_params,
            "n_active_params": args.n_active_params,
            "max_positions": args.max_positions,
            "hosts_per_layer": list(status.hosts_per_layer),
            "hosts_per_expert": [list(counts) for counts in status.hosts_per_expert],
            "missing": [[span.start, span.end] for span in missing],
            "missing_experts": expert_words(status.missing_experts),
            "join_command": f"swarm node start {shlex.quote(model.magnet)}{options}",
            "nodes": self._nodes_fields(seen.name, status, routes),
            "routes": [taken.fields() for taken in routes],
        }

    def _nodes_fields(self, name: str, status: SwarmStatus, routes: tuple[RouteTaken, ...]) -> list[dict[str, Any]]:
        """By their first layer; those that have gone come last."""
        here = {fact.node_id: fact for fact in status.nodes}
        gone = [s for node_id, s in self._seen.sightings.get(name, {}).items() if node_id not in here]
        present = [self._node_fields(fact, routes) for fact in sorted(here.values(), key=_by_layers)]
        now_s = self._clock()
        return present + [
            self._node_fields(sighting.fact, ()) | {"state": "gone", "gone_s": round(now_s - sighting.seen_s, 1)}
            for sighting in sorted(gone, key=lambda sighting: _by_layers(sighting.fact))
        ]

    def _node_fields(self, fact: NodeFact, routes: tuple[RouteTaken, ...]) -> dict[str, Any]:
        reach = self._reachability.at(fact.address)
        is_joining = fact.state is NodeState.JOINING
        mine = [t for t in routes if t.route is not None and any(h.node_id == fact.node_id for h in t.route.hops)]
        return {
            "node_id": fact.node_id,
            "state": fact.state.value,
            "spans": [[span.start, span.end] for span in fact.spans],
            "loaded_spans": [[span.start, span.end] for span in fact.loaded_spans],
            "trunks": [[span.start, span.end] for span in fact.trunks],
            "experts": [str(experts) for experts in fact.experts],
            "address": fact.address.short,
            "profile": str(fact.profile),
            "version": fact.version,
            "free_sessions": fact.free_sessions,
            "n_routes": len(mine),
            "tokens_per_s": round(_tokens_per_s(fact), 1),
            "needed_bytes": fact.needed_bytes,
            "fetched_bytes": fact.fetched_bytes + fact.found_bytes if is_joining else fact.needed_bytes,
            "is_reachable": None if reach is None else reach.connect_s is not None,
            "connect_ms": None if reach is None or reach.connect_s is None else round(reach.connect_s * 1000, 1),
        }


def _tokens_per_s(fact: NodeFact) -> float:
    """What the node could pass through all of its layers, one token after another; 0.0 while it has not measured."""
    n_layers = sum(len(span) for span in (*fact.spans, *fact.trunks))
    return 1 / (fact.layer_time_s * n_layers) if fact.layer_time_s > 0 and n_layers else 0.0


def _by_layers(fact: NodeFact) -> tuple[tuple[Span, ...], NodeId]:
    return tuple(sorted((*fact.spans, *fact.trunks, *(one.layers for one in fact.experts)))), fact.node_id
