"""The DHT among five real sessions on loopback: keys, torrents, and a newcomer who knows one node."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from swarm.errors import BadArgument, LocalProtocolError
from swarm.terms import Address
from swarm.torrent import Magnet, TorrentConfig, TorrentSession, create_torrent
from swarm.torrent.rendezvous import Rendezvous


def at(peer: TorrentSession) -> Address:
    return Address("127.0.0.1", peer.port)


@pytest.fixture
async def network() -> AsyncIterator[list[TorrentSession]]:
    """Five sessions; each but the first was told of the first alone."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(TorrentSession(TorrentConfig.loopback()))
        config = TorrentConfig.loopback(dht_bootstrap=(at(first),))
        yield [first, *[await stack.enter_async_context(TorrentSession(config)) for _ in range(4)]]


async def test_what_one_announces_all_others_find(network: list[TorrentSession]) -> None:
    key = bytes(range(20))
    assert await network[1].dht_announce(key, 5001, timeout_s=20)
    assert await network[2].dht_announce(key, 5002, timeout_s=20)
    both = {Address("127.0.0.1", 5001), Address("127.0.0.1", 5002)}
    async with asyncio.timeout(60.0):
        for session in network:
            found: set[Address] = set()
            while found != both:
                found |= await session.dht_look_up(key, 2.0)
            assert found == both
        assert await network[4].dht_look_up(bytes(20), 0.3) == set(), "a miss ends when its time has run out"


async def test_a_bare_magnet_finds_its_peers_through_one_node(tmp_path: Path, network: list[TorrentSession]) -> None:
    (tmp_path / "seed").mkdir()
    (tmp_path / "seed" / "w.bin").write_bytes(random.Random(0).randbytes(100_000))
    torrent = create_torrent(tmp_path / "seed" / "w.bin", piece_size=32768)
    await network[3].seed(torrent, tmp_path / "seed")
    async with TorrentSession(TorrentConfig.loopback()) as newcomer:
        # The peer named by the link has nothing of the torrent, but it is a node of the DHT.
        download = await newcomer.add(Magnet(torrent.v1, torrent.v2, peers=(at(network[1]),)), tmp_path / "out")
        await download.metadata(30)
        assert await download.fetch("w.bin", 90_000, 10_000) == (tmp_path / "seed" / "w.bin").read_bytes()[90_000:]


async def test_without_nodes_or_dht_nothing_is_promised() -> None:
    async with (
        TorrentSession(TorrentConfig.loopback()) as alone,
        TorrentSession(TorrentConfig.loopback(dht=False)) as off,
    ):
        assert not await alone.dht_announce(bytes(20), 1, timeout_s=0.1)
        assert await alone.dht_look_up(bytes(20), 0.1) == set()
        assert not await off.dht_announce(bytes(20), 1)
        assert await off.dht_look_up(bytes(20), 5.0) == set()
        with pytest.raises(LocalProtocolError, match="20 bytes"):
            await alone.dht_look_up(b"short", 1.0)
        with pytest.raises(BadArgument, match="port 0"):
            await alone.dht_announce(bytes(20), 0)


async def test_waiting_for_a_first_node_asks_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer that there is still none must not ask again at once: that would take a core until one is known."""
    n_answers = 0
    on_stats = Rendezvous.on_stats

    def counted(self: Rendezvous, alert: Any) -> bool:
        nonlocal n_answers
        n_answers += 1
        return on_stats(self, alert)

    monkeypatch.setattr(Rendezvous, "on_stats", counted)
    async with TorrentSession(TorrentConfig.loopback()) as alone:
        assert not await alone.dht_announce(bytes(20), 1, timeout_s=1.0)
    assert 1 <= n_answers <= 15, "ten, and that of each whole second"
