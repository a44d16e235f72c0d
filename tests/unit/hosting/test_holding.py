"""What a node is told to host, held against what the model has."""

from __future__ import annotations

import re

import pytest

from node.hosting import Holding
from node.weights import PRESETS
from swarm.errors import BadArgument
from swarm.terms import ExpertRange, Span

ARGS = PRESETS["tiny-mixtral"].args


@pytest.mark.parametrize(
    "named", [ExpertRange(Span(0, ARGS.n_layers + 4), (1,)), ExpertRange(Span(0, 2), (ARGS.n_experts,))], ids=str
)
def test_experts_beyond_the_model_are_named_as_they_were_typed(named: ExpertRange) -> None:
    last_layer, last_expert = ARGS.n_layers - 1, ARGS.n_experts - 1
    with pytest.raises(BadArgument, match=re.escape(f"--experts {named} ")) as caught:
        Holding.of(ARGS, (), (), named)
    assert f"0-{last_layer}" in str(caught.value) and f"0-{last_expert}" in str(caught.value)
