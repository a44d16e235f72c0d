"""Which layers: holes first, then where the least flows, one run of layers where that will do."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node.placement.flow import Flow
from node.placement.survey import Survey, survey
from node.placement.values import Assignment, Budget, PlacementConfig, Standing
from swarm.facts import NodeFact
from swarm.routing import layer_ranges
from swarm.terms import Span, counted, merge_spans

_Mask = NDArray[np.bool_]
"""(n_layers,): of some layers."""

_NEAR = 0.03
"""Spans whose gains differ by no more are equally good: which one is the node's own lot, so that many who decide at
once spread."""

_NEAR_FLOW = 0.01
"""The same of what flows through the whole model."""

_HOP_SHARE = 0.1
"""How much less, as a share, layers are worth for each further run that they come in."""

_LEAST = 0.01
"""A layer counts as having at least so much of what I would add: gains stay finite."""


def decide(
    facts: Sequence[NodeFact], budget: Budget, me: Standing, config: PlacementConfig, *, n_layers: int, now_s: float
) -> Assignment:
    """What I should host, by these facts; my own among them are ignored, `me` says what I host or claim.

    The same facts in any order, the same budget, standing and claim time give the same answer. Takes time proportional
    to the facts, plus the layers.
    """
    return place(survey(facts, n_layers, now_s, me), budget, me, config)


def place(view: Survey, budget: Budget, me: Standing, config: PlacementConfig) -> Assignment:
    """As `decide`, from facts that are added up already."""
    served = _mask(me.served, view.n_layers)
    sole = served & (view.serving == 0)
    n_fitting = min(budget.n_layers, view.n_layers)
    if n_fitting == 0 and not sole.any():
        return Assignment((), ("not one layer fits the budget",), bool(me.spans))
    gains = _gains(view, budget.throughput(n_fitting))
    needed = view.holes | sole
    mine = _mask(me.spans, view.n_layers)
    fitting = _fitting(gains, needed, sole, max(n_fitting, int(sole.sum())))
    flow = _flow(view, mine, budget, config)
    more_flow = 0.0
    if flow is not None and fitting.starts.size:
        fitting, more_flow = _where_more_flows(flow, fitting, me, config)
    best = _best(fitting, me) if fitting.starts.size else _scattered(gains, needed, sole, fitting.length)
    new = _spans(best)
    if new == me.spans:
        return Assignment(new, (*_why(view, best, budget), "it is what this node has"), False)
    if not me.spans:
        return Assignment(new, _why(view, best, budget), True)
    n_more = int((best & needed).sum() - (mine & needed).sum())
    if n_more > 0:
        return Assignment(new, (*_why(view, best, budget), f"that closes {n_more} hole(s) more than staying"), True)
    if n_more == 0 and more_flow > config.clear_flow:
        more = f"{more_flow:.0%} more flows through the whole model then"
        return Assignment(new, (*_why(view, best, budget), more), True)
    gain, stay = _worth(gains, best), _worth(gains, mine)
    if n_more < 0 or gain <= (1.0 + config.clear_gain) * stay:
        return Assignment(me.spans, ("no other layers are clearly worse off than those it has",), False)
    if not _is_drawn(view, best, mine, budget, me, config):
        return Assignment(me.spans, ("others are as well placed to move, and one of them will",), False)
    if flow is not None and np.diff(flow.at([me.spans, new]))[0] < 0.0:
        return Assignment(me.spans, ("less would flow through the whole model from there",), False)
    more = f"it is worth {gain / max(stay, 1e-12) - 1:.0%} more there"
    return Assignment(new, (*_why(view, best, budget), more), True)


def _flow(view: Survey, mine: _Mask, budget: Budget, config: PlacementConfig) -> Flow | None:
    """What flows through the whole model, where that is for one node to change: not in a large swarm, nor while there
    are holes that are not for it alone to keep closed.
    """
    if (view.holes & ~mine).any():
        return None
    flow = Flow(view.work, view.n_layers, 1.0 / budget.layer_time_s, budget.max_tokens_per_s)
    return flow if flow.matters(view.supply, config.clear_flow) else None


def _where_more_flows(flow: Flow, fitting: _Fitting, me: Standing, config: PlacementConfig) -> tuple[_Fitting, float]:
    """Of the runs those with which the most flows, where that is clearly more than now, and how much more, as a share;
    all of them, and 0, where it is not.
    """
    if me.spans and not flow.could_rise(me.spans, fitting.length, config.clear_flow):
        return fitting, 0.0
    runs = [(Span(int(start), int(start) + fitting.length),) for start in fitting.starts]
    flows = flow.at(runs)
    stay = float(flow.at([me.spans])[0]) if me.spans else 0.0
    if flows.max() <= (1.0 + config.clear_flow) * stay:
        return fitting, 0.0
    is_near = flows >= (1.0 - _NEAR_FLOW) * flows.max()
    near = _Fitting(fitting.starts[is_near], fitting.gain[is_near], fitting.length, fitting.n_layers, fitting.is_needed)
    return near, float(flows.max()) / stay - 1.0 if stay else math.inf


def _gains(view: Survey, tokens_per_s: float) -> NDArray[np.float64]:
    """What tokens_per_s more are worth at each layer: how much shorter a token would wait for it, relatively."""
    supply = np.maximum(view.supply, _LEAST * tokens_per_s)
    return tokens_per_s / supply - tokens_per_s / (supply + tokens_per_s)


def _worth(gains: NDArray[np.float64], layers: _Mask) -> float:
    """What the layers gain together; a route over several runs of them has a hop for each."""
    return float(gains[layers].sum()) / (1.0 + _HOP_SHARE * (len(_spans(layers)) - 1))


@dataclass(frozen=True, slots=True)
class _Fitting:
    """Runs of layers that hold all sole ones and as many of the needed as fit: (n,) where they start, and what each
    gains. is_needed: whether any layer is needed.
    """

    starts: NDArray[np.int64]
    gain: NDArray[np.float64]
    length: int
    n_layers: int
    is_needed: bool


def _fitting(gains: NDArray[np.float64], needed: _Mask, sole: _Mask, length: int) -> _Fitting:
    n_needed, n_sole, gain = (_window_sums(values, length) for values in (needed, sole, gains))
    fits = np.flatnonzero((n_sole == sole.sum()) & (n_needed == min(length, int(needed.sum()))))
    if n_needed.max() == length:  # whichever of them: the first, for the next to come to find one run left
        fits = fits[:1]
    return _Fitting(fits, gain[fits], length, len(gains), bool(needed.any()))


def _best(fitting: _Fitting, me: Standing) -> _Mask:
    """The run of the largest gain, as a mask; of nearly equal ones the node's own lot."""
    if fitting.is_needed:
        start = int(fitting.starts[np.argmax(fitting.gain)])
    else:
        near = fitting.starts[fitting.gain >= (1.0 - _NEAR) * fitting.gain.max()]
        start = int(near[random.Random(me.node_id).randrange(len(near))])
    chosen = np.zeros(fitting.n_layers, dtype=np.bool_)
    chosen[start : start + fitting.length] = True
    return chosen


def _window_sums(values: _Mask | NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """Of every run of so many neighbours, by its start."""
    total = np.concatenate(([0.0], np.cumsum(values.astype(np.float64))))
    return np.asarray(total[length:] - total[:-length])


def _scattered(gains: NDArray[np.float64], needed: _Mask, sole: _Mask, n_fitting: int) -> _Mask:
    """No run will do: the sole layers, then whole runs of needed ones, the longest first, then their neighbours."""
    chosen = sole.copy()
    for span in sorted(_spans(needed & ~sole), key=lambda span: (-len(span), span.start)):
        for layer_idx in list(span)[: max(0, n_fitting - int(chosen.sum()))]:
            chosen[layer_idx] = True
    while chosen.sum() < n_fitting:
        beside = ~chosen & (np.roll(chosen, 1) & (np.arange(len(gains)) > 0) | np.append(chosen[1:], False))
        chosen[int(np.argmax(np.where(beside, gains, -1.0)))] = True
    return chosen


def _is_drawn(view: Survey, best: _Mask, mine: _Mask, budget: Budget, me: Standing, config: PlacementConfig) -> bool:
    """Whether I am among those who should move, where many see the same gain before they see each other move.

    Moving evens out after so many moves as half the difference holds; of those who could move, a share decides within
    the age of a view.
    """
    tokens_per_s = budget.throughput(int(mine.sum()))
    n_wanted = max(1.0, (view.supply[mine].mean() - view.supply[best].mean()) / (2.0 * tokens_per_s))
    n_deciding = (view.hosts[mine].mean() + 1.0) * min(1.0, config.lag_s / config.interval_s)
    return random.Random(f"{me.node_id}:{me.placed_at_s:.3f}").random() < n_wanted / n_deciding


def _why(view: Survey, chosen: _Mask, budget: Budget) -> tuple[str, ...]:
    """What spoke for these layers, in words."""
    layers = [int(idx) for idx in np.flatnonzero(chosen)]
    reasons = [f"{budget.n_layers} of {counted(view.n_layers, 'layer')} fit here"]
    if holes := [idx for idx in layers if view.holes[idx]]:
        reasons.append(f"no other node hosts layers {layer_ranges(holes)}")
    if covered := [idx for idx in layers if not view.holes[idx]]:
        least, usual = float(view.supply[covered].min()), float(np.median(view.supply))
        reasons.append(
            f"layers {layer_ranges(covered)} have {least:.3g} tokens/s at their narrowest (the model's median: "
            f"{usual:.3g})"
        )
    return tuple(reasons)


def _mask(spans: Iterable[Span], n_layers: int) -> _Mask:
    mask = np.zeros(n_layers, dtype=np.bool_)
    for span in spans:
        mask[span.start : span.end] = True
    return mask


def _spans(mask: _Mask) -> tuple[Span, ...]:
    return merge_spans([Span(int(idx), int(idx) + 1) for idx in np.flatnonzero(mask)])
