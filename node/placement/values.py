"""What a decision is made from, and what it comes to."""

from __future__ import annotations

import math
from dataclasses import dataclass

from swarm.errors import BadArgument
from swarm.terms import NodeId, Profile, Span


@dataclass(frozen=True, slots=True)
class Budget:
    """What a machine gives to one release.

    n_layers: whole layers that it can keep; 0 when less than one fits. layer_time_s: measured seconds for one token
    through one of them. max_tokens_per_s: what its link passes on, whatever it hosts.
    """

    n_layers: int
    layer_time_s: float
    max_tokens_per_s: float = math.inf

    def __post_init__(self) -> None:
        if self.n_layers < 0 or not self.layer_time_s > 0 or not self.max_tokens_per_s > 0:
            raise BadArgument("a budget has 0 or more layers, and takes and passes on tokens in finite time")

    def throughput(self, n_layers: int) -> float:
        """Tokens per second through so many layers, one after another on this machine."""
        return min(1.0 / (max(1, n_layers) * self.layer_time_s), self.max_tokens_per_s)


@dataclass(frozen=True, slots=True)
class Standing:
    """Who decides, and from where.

    spans: what it hosts or has claimed, which it leaves for a clear gain only; () when it comes new. served: layers
    that it serves now, which it gives up only when others serve them. placed_at_s: when it made that claim, by its own
    clock; a fresh decision is made now. Of two nodes that claim the same, the earlier (by this, then by node id) keeps
    it.
    """

    node_id: NodeId
    profile: Profile
    placed_at_s: float
    spans: tuple[Span, ...] = ()
    served: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class Assignment:
    """Layers to host, sorted and disjoint, and in words why these. moves: whether they differ from the standing's."""

    spans: tuple[Span, ...]
    reasons: tuple[str, ...]
    moves: bool


@dataclass(frozen=True, slots=True)
class PlacementConfig:
    """Rhythm and patience of a node that places itself.

    interval_s: between two decisions, give or take half of it; lower answers a loss sooner, and moves more often on
    old news. settle_s: how long a claim stands before anything is fetched for it: long enough for two nodes that start
    together to hear of each other. clear_gain: how much more a move must bring than staying, as a share; lower balances
    better and moves more. clear_flow: the same of what flows through the whole model, where one node can change that.
    lag_s: how old a view may be, so how many others may be deciding on the same one.
    """

    interval_s: float = 120.0
    settle_s: float = 10.0
    clear_gain: float = 0.35
    clear_flow: float = 0.05
    lag_s: float = 20.0

    def __post_init__(self) -> None:
        if min(self.interval_s, self.lag_s) <= 0 or min(self.settle_s, self.clear_gain, self.clear_flow) < 0:
            raise BadArgument("a placement's times must be positive, and its clear gains 0 or more")

    @classmethod
    def for_network(cls, network: str) -> PlacementConfig:
        """network: 'loopback', 'lan' or 'wan'."""
        if network == "loopback":
            return cls(interval_s=2.0, settle_s=1.0, lag_s=0.5)
        return cls(interval_s=30.0, settle_s=4.0, lag_s=4.0) if network == "lan" else cls()
