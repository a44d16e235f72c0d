"""What should this node host? A pure function: the facts in force, a budget, the clock and who asks -> layers, and why.

Promises that holes are covered first, that the layers of the least throughput come next, that nothing which nobody
else serves is ever given up, and that a node moves only for a clear gain. Many nodes that decide alone, each with its
own view, add up: of two that chose the same, the later one sees the other's claim and chooses again. Knows no clock, no
network, no torch; it measures nothing and moves nothing (node.moving does).
"""

from __future__ import annotations

from node.placement.decide import decide, place
from node.placement.experts import choose_experts, heat_of
from node.placement.moves import Part, plan_move
from node.placement.parts import PartsAssignment, PartsBudget, decide_parts
from node.placement.survey import Survey, median_speed, survey
from node.placement.values import Assignment, Budget, PlacementConfig, Standing

__all__ = [
    "Assignment",
    "Budget",
    "Part",
    "PartsAssignment",
    "PartsBudget",
    "PlacementConfig",
    "Standing",
    "Survey",
    "choose_experts",
    "decide",
    "decide_parts",
    "heat_of",
    "median_speed",
    "place",
    "plan_move",
    "survey",
]
