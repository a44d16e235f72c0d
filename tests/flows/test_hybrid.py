"""A release made with --hybrid is named by both of its hashes, and serves nodes and clients just the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swarm.errors import BadArgument
from swarm.sampling import SamplingParams
from swarm.terms import Address
from swarm.torrent import TorrentConfig, TorrentSession, create_torrent


async def test_a_hybrid_release_serves_from_its_magnet(
    release: Callable[..., Path], local_swarm: Callable[[Path], Any]
) -> None:
    folder = release("tiny-mixtral")
    torrent = create_torrent(folder, piece_size=64 << 10, hybrid=True)
    async with TorrentSession(TorrentConfig.loopback()) as seeder:
        await seeder.seed(torrent, folder.parent, verified=True)
        magnet = torrent.magnet(peers=(Address("127.0.0.1", seeder.port),))
        assert magnet.v1 is not None
        assert magnet.v2 is not None
        swarm = local_swarm(folder)
        swarm.magnet = str(magnet)
        await swarm.start("0:6")
        async with swarm.client() as client:
            generation = await client.generate(
                [5, 6, 7], SamplingParams(max_tokens=4, temperature=0.0, ignore_eos=True)
            )
        assert len(generation.ids) == 4

        swarm.magnet = f"magnet:?xt=urn:btmh:1220{magnet.v2}&x.pe={magnet.peers[0]}"
        with pytest.raises(BadArgument, match=torrent.infohash):
            async with swarm.client():
                pass
