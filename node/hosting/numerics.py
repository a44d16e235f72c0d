"""How this machine computes a release, and the profile that it may promise for it."""

from __future__ import annotations

import torch

from node.model import Numerics, fingerprint, instruction_set
from node.weights import TORCH_DTYPES
from swarm.errors import BadArgument
from swarm.release import ModelArgs
from swarm.terms import Profile


def settle_profile(profile: Profile, wants_exact: bool | None, args: ModelArgs, device: torch.device) -> Profile:
    """The profile that a node of this release has: profile with the promise of exactness, where that is wanted and can
    be kept.

    wants_exact: None takes exactness wherever this device has it. Takes about a second for real dimensions: the
    fingerprint is of products of the model's own shapes.
    Raises: BadArgument where exactness is demanded and cannot be had.
    """
    can = profile.dtype == "bf16" and not profile.quantisation and device.type == "cpu"
    if wants_exact and not can:
        raise BadArgument(
            f"the exact profile is for bf16 on CPUs, not for {profile} on {device.type}; leave --profile away"
        )
    if not can or wants_exact is False:
        return profile
    return Profile(profile.dtype, exactness=f"{instruction_set()}-{fingerprint(matrix_shapes(args))}")


def numerics_of(profile: Profile) -> Numerics:
    return Numerics(TORCH_DTYPES[profile.dtype], profile.quantisation, bool(profile.exactness))


def matrix_shapes(args: ModelArgs) -> set[tuple[int, int]]:
    """(out, in) of every matrix that rows are multiplied by."""
    shapes = {
        ((args.n_heads + 2 * args.n_kv_heads) * args.head_dim, args.dim),
        (args.dim, args.n_heads * args.head_dim),
        (args.hidden_dim, args.dim),
        (args.dim, args.hidden_dim),
        (args.vocab_size, args.dim),
    }
    return shapes | {(args.n_experts, args.dim)} if args.is_moe else shapes
