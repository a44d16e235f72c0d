"""How the loss of a node is told: which one, once, and why."""

from __future__ import annotations

import pytest

from swarm.client.session import HopFailed
from swarm.errors import SessionLost
from swarm.terms import NodeId

NODE, OTHER = NodeId("mrvynnhp" + "a" * 44), NodeId("b" * 52)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("node mrvynnhp at 127.0.0.1:7 can't be reached", "it can't be reached"),
        ("the connection to node mrvynnhp at [::1]:7 was closed during the call", "the connection to it was closed"),
        ("node mrvynnhp (hop 1): the stage is shutting down", "the stage is shutting down"),
        ("node mrvynnhp (hop 0): node bbbbbbbb at 127.0.0.1:8 went away", "node bbbbbbbb at 127.0.0.1:8 went away"),
        (f"node {NODE} hangs", "it hangs"),
        ("a step takes 2.00 s there", "a step takes 2.00 s there"),
    ],
)
def test_a_lost_node_is_named_once(said: str, why: str) -> None:
    lost, reason = HopFailed(NODE, SessionLost(said)).loss
    assert lost == "node mrvynnhp was lost"
    assert reason.startswith(why)
    assert "mrvynnhp" not in reason


def test_where_nobody_knows_who_it_was_all_are_named() -> None:
    lost, reason = HopFailed((NODE, OTHER), SessionLost("the route did not answer")).loss
    assert (lost, reason) == ("node mrvynnhp or bbbbbbbb was lost", "the route did not answer")
