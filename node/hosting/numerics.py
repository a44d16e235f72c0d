"""How this machine computes a release, and the profile that it may promise for it."""

from __future__ import annotations

import torch

from node.model import Numerics, fingerprint, instruction_set, require_int8, why_no_gpu_kernels
from node.weights import TORCH_DTYPES
from swarm.errors import BadArgument
from swarm.release import ModelArgs
from swarm.terms import Profile


def settle_profile(profile: Profile, wants_exact: bool | None, args: ModelArgs, device: torch.device) -> Profile:
    """The profile that a node of this release has: profile with the promise of exactness, where that is wanted and can
    be kept.

    wants_exact: None takes exactness wherever this device has it. The fingerprint is of products of the model's
    own shapes, each weighed up once: seconds for real dimensions.
    Raises: BadArgument where exactness is demanded and cannot be had, or the quantisation does not run here.
    """
    # Asked in any case: it is tried once, for seconds, and this is no event loop.
    why = None if device.type == "cpu" else why_no_gpu_kernels(device)
    if profile.quantisation and why is not None:
        raise BadArgument(
            f"--quantize needs this project's own kernels, and {why}; leave it away, or take --device cpu"
        )
    if profile.quantisation == "int8" and device.type == "cpu":
        require_int8()
    can = profile.dtype == "bf16" and profile.quantisation != "int4" and device.type == "cpu"
    if wants_exact and not can:
        raise BadArgument(
            f"the exact profile is for bf16 on CPUs, not for {profile} on {device.type}; leave --profile away"
        )
    if not can or wants_exact is False:
        return profile
    numerics = Numerics(TORCH_DTYPES[profile.dtype], profile.quantisation, is_exact=True)
    bits = f"{instruction_set()}-{fingerprint(bf16_shapes(args, profile.quantisation), numerics)}"
    return Profile(profile.dtype, profile.quantisation, bits)


def numerics_of(profile: Profile) -> Numerics:
    return Numerics(TORCH_DTYPES[profile.dtype], profile.quantisation, bool(profile.exactness))


def bf16_shapes(args: ModelArgs, quantisation: str) -> set[tuple[int, int]]:
    """(out, in) of every matrix whose products are summed in floating point: all, or the router and the head."""
    ends = {(args.vocab_size, args.dim)} | ({(args.n_experts, args.dim)} if args.is_moe else set())
    if quantisation:
        return ends
    return ends | {
        ((args.n_heads + 2 * args.n_kv_heads) * args.head_dim, args.dim),
        (args.dim, args.n_heads * args.head_dim),
        (args.hidden_dim, args.dim),
        (args.dim, args.hidden_dim),
    }
