"""The experts that are here, and the seam to those that are not.

A pass through the layers is a generator of Steps: where a layer's router has sent rows to experts elsewhere, it yields
what it waits for, and goes on when that is done. Who drives it may compute something else meanwhile. Nothing here
knows where elsewhere is.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future
from typing import Protocol, TypeVar
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from node.model.feed_forward import FeedForward
from node.model.heat import RoutingHeat
from node.model.ops import Gate, Linear, Numerics
from node.model.taking import Taker
from swarm.release import ModelArgs
from swarm.terms import ExpertId

T = TypeVar("T")

Answers = Mapping[int, Tensor]
"""expert_idx -> (n, D): its answers for the rows that it was given, in their order and the rows' own dtype."""

Steps = Generator[Future[Answers], None, T]
"""A computation that yields what it waits for; resume it with next() once that is done, however it ended."""


class Elsewhere(Protocol):
    """The experts of other nodes."""

    def apply(self, layer_idx: int, x: Tensor, wanted: Mapping[int, Sequence[int]]) -> Future[Answers]:
        """Ask for experts of a layer: expert_idx -> which rows of x (T, D) it gets. Returns at once.

        The future has an answer for every expert that was asked for, or raises.
        """


class LayerExperts(dict[int, FeedForward]):
    """Experts of one layer by their index."""


class ExpertStore:
    """The experts that are loaded on this machine, of any layers, and how often they are routed to.

    Those of a layer that is loaded live as long as the layer; single ones as long as the store. Loaded by one thread,
    read by any.
    """

    def __init__(self, args: ModelArgs, numerics: Numerics, *, device: torch.device | str = "cpu") -> None:
        self.args = args
        self.numerics = numerics
        self.device = torch.device(device)
        self.heat = RoutingHeat(args.n_experts)
        self._layers: WeakValueDictionary[int, LayerExperts] = WeakValueDictionary()
        self._single: dict[int, LayerExperts] = {}

    @property
    def ids(self) -> frozenset[ExpertId]:
        return frozenset(
            ExpertId(layer_idx, expert_idx)
            for layer_idx, experts in list(self._layers.items())
            for expert_idx in experts
        )

    def of_layer(self, layer_idx: int) -> LayerExperts:
        """What is here of one layer, now and later: the mapping grows as experts are loaded."""
        return self._layers.setdefault(layer_idx, LayerExperts())

    def load(self, expert: ExpertId, tensors: Mapping[str, Tensor], prefix: str = "") -> None:
        """Take a single expert's weights, keyed prefix + 'w1.weight' and so on, in the model's dtype on its device.

        Raises: LocalProtocolError for a tensor missing, or one of another shape.
        """
        take = Taker(tensors, self.numerics.dtype, self.device)
        loaded = feed_forward(take, prefix, self.args, self.numerics)
        experts = self._single[expert.layer_idx] = self.of_layer(expert.layer_idx)
        experts[expert.expert_idx] = loaded


def feed_forward(take: Taker, prefix: str, args: ModelArgs, numerics: Numerics) -> FeedForward:
    dim, hidden_dim = args.dim, args.hidden_dim
    gate = Gate((take(f"{prefix}{name}.weight", hidden_dim, dim) for name in ("w1", "w3")), numerics)
    return FeedForward(gate, Linear(take(f"{prefix}w2.weight", dim, hidden_dim), numerics))


def finish(steps: Steps[T]) -> T:
    """Run steps to their end, standing still where they wait. Raises: what they raise."""
    try:
        while True:
            next(steps).exception()  # waits; what went wrong is raised in the steps
    except StopIteration as done:
        result: T = done.value
        return result
