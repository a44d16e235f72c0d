"""What a node may promise about its numbers, and what it cannot run."""

from __future__ import annotations

import pytest
import torch

from node.hosting import numerics_of, settle_profile
from node.weights import PRESETS
from swarm.errors import BadArgument
from swarm.terms import Profile

ARGS = PRESETS["tiny-mixtral"].args
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("asked", "wants_exact", "exact"),
    [
        (Profile("bf16"), None, True),
        (Profile("bf16"), False, False),
        (Profile("fp32"), None, False),
        (Profile("bf16", "int8"), None, True),
        (Profile("bf16", "int8"), False, False),
        (Profile("bf16", "int4"), None, False),
    ],
    ids=str,
)
def test_a_profile_says_what_is_computed(asked: Profile, wants_exact: bool | None, exact: bool) -> None:
    profile = settle_profile(asked, wants_exact, ARGS, CPU)
    assert profile.base == asked
    assert bool(profile.exactness) == exact
    numerics = numerics_of(Profile.parse(str(profile)))
    assert (numerics.quantisation, numerics.is_exact) == (asked.quantisation, exact)


@pytest.mark.parametrize(
    ("asked", "wants_exact", "device", "mended_by"),
    [
        (Profile("bf16", "int4"), True, CPU, "leave --profile away"),
        (Profile("fp32"), True, CPU, "leave --profile away"),
        (Profile("bf16", "int8"), None, torch.device("cuda"), "--device cpu"),
        (Profile("bf16", "int4"), None, torch.device("mps"), "--device cpu"),
    ],
    ids=str,
)
def test_what_cannot_be_kept_is_refused(
    asked: Profile, wants_exact: bool, device: torch.device, mended_by: str
) -> None:
    with pytest.raises(BadArgument, match=mended_by):
        settle_profile(asked, wants_exact, ARGS, device)
