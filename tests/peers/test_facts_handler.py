"""A node that asks without a pause is refused after a while, and nobody else for its sake."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from node.server import DialBack, FactsHandler, allowance
from node.server.facts import EXCHANGES, HOST_SHARE
from swarm.client.network import RpcFactsPort
from swarm.discovery import Discovery, DiscoveryConfig
from swarm.errors import StageFull
from swarm.facts import Known
from swarm.identity import NodeKey
from swarm.terms import Infohash, NodeId

RELEASE = Infohash("ab" * 20)


async def test_who_never_pauses_is_refused_and_no_other(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [1000.0]
    monkeypatch.setattr(allowance, "time", SimpleNamespace(monotonic=lambda: now_s[0]))  # not the event loop's own
    dialer = world.dialer()
    discovery = Discovery(RELEASE, RpcFactsPort(dialer), DiscoveryConfig())
    handler = FactsHandler(discovery, lambda: None, DialBack(dialer, lambda: None))
    eager, other = (NodeKey.generate().node_id for _ in range(2))
    for _ in range(EXCHANGES):
        assert await handler.exchange(RELEASE, (), Known(), eager, "") == ([], False)
    with pytest.raises(StageFull, match="ask another"):
        await handler.exchange(RELEASE, (), Known(), eager, "")
    assert await handler.exchange(RELEASE, (), Known(), other, "") == ([], False)
    now_s[0] += 1.0
    assert await handler.exchange(RELEASE, (), Known(), eager, "") == ([], False)


async def test_new_ids_bring_one_host_no_further(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowance, "time", SimpleNamespace(monotonic=lambda: 1000.0))
    dialer = world.dialer()
    handler = FactsHandler(
        Discovery(RELEASE, RpcFactsPort(dialer), DiscoveryConfig()), lambda: None, DialBack(dialer, lambda: None)
    )
    ids = [NodeId(f"{n:052}") for n in range(HOST_SHARE * EXCHANGES + 1)]
    for one in ids[1:]:
        await handler.exchange(RELEASE, (), Known(), one, "192.0.2.1")
    with pytest.raises(StageFull, match="ask another"):
        await handler.exchange(RELEASE, (), Known(), ids[0], "192.0.2.1")
    assert await handler.exchange(RELEASE, (), Known(), ids[0], "192.0.2.2") == ([], False)
    assert await handler.exchange(RELEASE, (), Known(), ids[0], "") == ([], False), "a relay's callers are many"
