"""What this machine gives to a release, and so how it makes its choice."""

from __future__ import annotations

import torch

from node.hosting import layers_that_fit, measure_layer_time
from node.hosting.budget import RESERVED_SHARE
from node.model import Numerics
from node.moving.claims import Claims
from node.moving.part_claims import PartClaims
from node.placement import Budget, PartsBudget, PlacementConfig
from node.server import Statement
from swarm.discovery import Discovery
from swarm.errors import BadArgument
from swarm.release import ModelArgs
from swarm.release.args import STORED_DTYPES
from swarm.terms import NodeId


def measure(
    args: ModelArgs,
    numerics: Numerics,
    device: torch.device,
    *,
    n_layers: int = 0,
    memory_bytes: int,
    disk_bytes: int,
    max_tokens_per_s: float,
) -> Budget | PartsBudget:
    """Layers by memory and disk (n_layers of them where that is settled), their speed by a real step; of a mixture
    whose layers are too large, parts of them. Raises: BadArgument when nothing fits.
    """
    try:
        n_layers = n_layers or layers_that_fit(args, numerics, memory_bytes, disk_bytes)
    except BadArgument:
        parts = _parts_that_fit(args, numerics, memory_bytes, disk_bytes)
        if parts is None:
            raise
        return parts
    return Budget(n_layers, measure_layer_time(args, numerics, device), max_tokens_per_s)


def claims_for(
    budget: Budget | PartsBudget, node_id: NodeId, discovery: Discovery, said: Statement, network: str, n_experts: int
) -> Claims | PartClaims:
    """How a node of this budget makes its choice. network: 'loopback', 'lan' or 'wan'."""
    placement = PlacementConfig.for_network(network)
    if isinstance(budget, PartsBudget):
        return PartClaims(node_id, discovery, said, budget, placement, n_experts)
    return Claims(node_id, discovery, said, budget, placement)


def _parts_that_fit(args: ModelArgs, numerics: Numerics, memory_bytes: int, disk_bytes: int) -> PartsBudget | None:
    """None where there is no room for an expert either, or the model has none."""
    ends_bytes = 2 * args.vocab_size * args.dim * numerics.dtype.itemsize
    free = int(memory_bytes * (1 - RESERVED_SHARE))
    smallest_bytes = (args.n_trunk_params + args.n_expert_params) * numerics.layer_bytes_per_value
    takes_trunks = free - ends_bytes >= smallest_bytes
    n_params = int((free - ends_bytes if takes_trunks else free) / numerics.layer_bytes_per_value)
    if disk_bytes:
        n_params = min(n_params, disk_bytes // STORED_DTYPES[args.stored_dtype])
    if not args.is_moe or n_params < args.n_expert_params:
        return None
    return PartsBudget(n_params, args.n_trunk_params, args.n_expert_params, takes_trunks)
