"""What netcheck makes of each answer: bad is only what keeps a node from serving, and whatever is bad has a mend."""

from __future__ import annotations

import pytest

from swarm.client import netcheck
from swarm.client.network import NetworkConfig
from swarm.client.reach import Verdict
from swarm.facts import NodeFact, NodeState, Reachability
from swarm.terms import Address, Infohash, NodeId, Profile
from swarm.torrent import Mapped

LISTENING = Address("0.0.0.0", 7000)
RELAY = NodeFact(
    NodeId("a" * 52), Infohash("ab" * 20), Address("203.0.113.1", 7000), 1, 1.0, 60.0, NodeState.SERVING, (),
    Profile("bf16"), 4, relay_places=3,
)  # fmt: skip
REACHED = Verdict(Reachability.REACHABLE, "203.0.113.2", n_answers=2)
MISSED = Verdict(Reachability.UNREACHABLE, "203.0.113.2", "203.0.113.2:7000 can't be reached", 3)
UNASKED = Verdict(Reachability.UNKNOWN)


@pytest.mark.parametrize(
    ("verdict", "relays", "reach", "relay"),
    [
        (REACHED, [RELAY], "ok", "ok"),
        (REACHED, [], "ok", "note"),
        (MISSED, [RELAY], "note", "ok"),
        (MISSED, [], "bad", "bad"),
        (UNASKED, [], "unknown", "note"),
    ],
)
def test_only_a_node_that_nobody_reaches_and_no_relay_takes_is_kept_from_serving(
    verdict: Verdict, relays: list[NodeFact], reach: str, relay: str
) -> None:
    found = (netcheck._reach(verdict, LISTENING, 7000, Mapped(), bool(relays)), netcheck._relay(verdict, relays))
    assert [finding.state for finding in found] == [reach, relay]
    assert all(finding.mend for finding in found if finding.state == "bad")
    if verdict is MISSED:
        assert verdict.problem in found[0].says and "7000" in found[0].mend


def test_a_router_s_word_is_told_and_its_silence_mended() -> None:
    wan, lan = NetworkConfig.named("wan"), NetworkConfig.named("lan")
    mapped = netcheck._mapping(wan, Mapped(Address("203.0.113.2", 7001), "UPnP", ""), 7000)
    assert mapped.state == "ok" and "203.0.113.2:7001" in mapped.says and "UPnP" in mapped.says
    silent = netcheck._mapping(wan, Mapped(), 7000)
    assert silent.state == "note" and "UPnP or NAT-PMP" in silent.mend and "7000" in silent.mend
    assert netcheck._mapping(lan, Mapped(), 7000).mend == ""
