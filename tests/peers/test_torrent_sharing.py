"""Sessions that share one folder, as processes of one machine do: the bytes come once, and the last one goes on."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from swarm.errors import BadArgument
from swarm.terms import Address
from swarm.torrent import Torrent, TorrentConfig, TorrentSession, create_torrent

PIECE = 64 << 10
N_PIECES = 40


@pytest.fixture
def torrent(tmp_path: Path) -> Torrent:
    (tmp_path / "seed" / "model").mkdir(parents=True)
    (tmp_path / "seed" / "model" / "w.bin").write_bytes(random.Random(1).randbytes(N_PIECES * PIECE))
    return create_torrent(tmp_path / "seed" / "model", piece_size=PIECE)


def session(**overrides: object) -> TorrentSession:
    return TorrentSession(TorrentConfig.loopback(**{"dht": False, **overrides}))


def data(tmp_path: Path) -> bytes:
    return (tmp_path / "seed" / "model" / "w.bin").read_bytes()


async def test_what_two_sessions_want_comes_once(tmp_path: Path, torrent: Torrent) -> None:
    async with session() as seeder, session() as keeper, session() as follower:
        seed = await seeder.seed(torrent, tmp_path / "seed")
        magnet = torrent.magnet([Address("127.0.0.1", seeder.port)])
        first = await keeper.add(magnet, tmp_path / "out")
        second = await follower.add(magnet, tmp_path / "out")
        assert (await second.metadata(20)).infohash == (await first.metadata(20)).infohash
        await first.want(dict.fromkeys(range(20), 7))
        await second.want(dict.fromkeys(range(10, 40), 4))
        await second.wait_for(range(10, 40), stall_timeout_s=20)
        await first.wait_for(range(20), stall_timeout_s=20)
        assert await second.fetch("w.bin", 15 * PIECE + 1, 10 * PIECE) == data(tmp_path)[15 * PIECE + 1 :][: 10 * PIECE]
        assert (await seed.refresh()).uploaded_bytes == N_PIECES * PIECE
        assert second.status().fetched_bytes == 0
        assert second.status().have_bytes == N_PIECES * PIECE
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if ".want-" in path.name) == []


async def test_a_follower_meets_others_in_the_dht(tmp_path: Path, torrent: Torrent) -> None:
    """It has no torrent of its own whose peers could lead it there."""
    key = b"k" * 20
    async with session(dht=True) as seeder, session(dht=True) as keeper, session(dht=True) as follower:
        await seeder.seed(torrent, tmp_path / "seed")
        magnet = torrent.magnet([Address("127.0.0.1", seeder.port)])
        await keeper.add(magnet, tmp_path / "out")
        await follower.add(magnet, tmp_path / "out")
        assert await keeper.dht_announce(key, 4242, timeout_s=20)
        assert Address("127.0.0.1", 4242) in await follower.dht_look_up(key, 20)


async def test_a_follower_takes_over_what_it_still_waits_for(tmp_path: Path, torrent: Torrent) -> None:
    async with session() as seeder, session() as follower:
        seed = await seeder.seed(torrent, tmp_path / "seed")
        magnet = torrent.magnet([Address("127.0.0.1", seeder.port)])
        async with session() as keeper:
            first = await keeper.add(torrent, tmp_path / "out")  # which knows nobody
            await first.checked()
            second = await follower.add(magnet, tmp_path / "out")
            await second.metadata(20)
            await second.want(dict.fromkeys(range(N_PIECES), 4))
        await second.wait_for(range(N_PIECES), stall_timeout_s=20)
        assert (await seed.refresh()).uploaded_bytes == N_PIECES * PIECE
    assert (tmp_path / "out" / "model" / "w.bin").read_bytes() == data(tmp_path)


async def test_notes_of_the_dead_and_of_strangers_are_not_believed(tmp_path: Path, torrent: Torrent) -> None:
    """A list of wants whose process has gone is removed, one that is no list is ignored, a stale bitmap replaced."""
    out = tmp_path / "out"
    out.mkdir()
    (out / f".{torrent.infohash}.have").write_bytes(b"\xff" * 5)
    (out / f".{torrent.infohash}.want-1-dead").write_bytes(b"[[0, 7]]")
    async with session() as keeper, session() as follower:
        first = await keeper.add(torrent, out)
        second = await follower.add(torrent, out)
        wants = next(path for path in out.iterdir() if ".want-" in path.name and not path.name.endswith("dead"))
        for spoilt in (b'[["x", 7], [1, 99]]', b"[[1, Infinity]]", b"[" * 100_000):
            wants.write_bytes(spoilt)
            await second.refresh()
            n_updates = first.transfer.n_status_updates
            async with asyncio.timeout(20):  # the session still keeps up
                while first.transfer.n_status_updates < n_updates + 3:
                    await first.transfer.changed(1.0)
        await second.checked()
        assert not any(second.has(piece) for piece in range(N_PIECES))
        while (out / f".{torrent.infohash}.want-1-dead").exists():
            await first.transfer.changed(1.0)
        assert first.transfer.wanted == {}


async def test_what_a_keeper_gave_up_is_fetched_again_for_a_follower(tmp_path: Path, torrent: Torrent) -> None:
    """The follower has seen those pieces here: it must not load the holes that they have become."""
    async with session() as seeder, session() as keeper, session() as follower:
        await seeder.seed(torrent, tmp_path / "seed")
        magnet = torrent.magnet([Address("127.0.0.1", seeder.port)])
        first = await keeper.add(torrent, tmp_path / "out", peers=magnet.peers)
        await first.fetch("w.bin", 0, PIECE)
        second = await follower.add(magnet, tmp_path / "out")
        await second.metadata(20)
        await second.checked()
        assert second.has(0)
        first.transfer.wanted.clear()  # as a node that starts again with other layers
        await keeper.drop(first, [0])
        await second.want({0: 7})
        await second.wait_for([0], stall_timeout_s=20)
        assert (tmp_path / "out" / "model" / "w.bin").read_bytes()[:PIECE] == data(tmp_path)[:PIECE]


async def test_a_followers_bound_holds_for_the_folder(tmp_path: Path, torrent: Torrent) -> None:
    """The keeper gives up what nobody hosts before it fetches what the follower wants."""
    async with session() as seeder, session() as keeper, session() as follower, session() as third:
        await seeder.seed(torrent, tmp_path / "seed")
        magnet = torrent.magnet([Address("127.0.0.1", seeder.port)])
        first = await keeper.add(torrent, tmp_path / "out", peers=magnet.peers)
        await first.want(dict.fromkeys(range(20), 4))
        await first.wait_for(range(20), stall_timeout_s=20)
        await keeper.make_room(first, range(10, 20), 0)  # as a node that moves to other layers
        second = await follower.add(magnet, tmp_path / "out")
        await second.metadata(20)
        await follower.make_room(second, range(20, 28), 20 * PIECE)
        await second.want(dict.fromkeys(range(20, 28), 4))
        await second.wait_for(range(20, 28), stall_timeout_s=20)
        assert sum(map(first.has, range(10))) == 2, "20 pieces: 10 of one, 8 of the other, and two that were left"
        assert all(map(first.has, range(10, 28)))
        on_disk = (tmp_path / "out" / "model" / "w.bin").stat().st_blocks * 512
        assert on_disk <= 20 * PIECE

        newcomer = await third.add(magnet, tmp_path / "out")
        await newcomer.metadata(20)
        with pytest.raises(BadArgument, match=rf"take {21 * PIECE} bytes on disk and --disk allows {20 * PIECE} "):
            await third.make_room(newcomer, range(28, 31), 0)
        await third.make_room(newcomer, range(28, 30), 0)
        await newcomer.want({28: 4, 29: 4})
        await newcomer.wait_for([28, 29], stall_timeout_s=20)
        assert not any(map(first.has, range(10)))

        await follower.make_room(second, range(5), 20 * PIECE)  # it moves, and is a follower still
        await second.want(dict.fromkeys(range(5), 4))
        await second.wait_for(range(5), stall_timeout_s=20)
        assert sum(map(first.has, range(N_PIECES))) == 20
        assert all(map(first.has, (*range(5), *range(10, 20), 28, 29)))


async def test_the_rarest_pieces_are_given_up_last(tmp_path: Path, torrent: Torrent) -> None:
    async with session() as seeder, session() as other, session() as leecher:
        await seeder.seed(torrent, tmp_path / "seed")
        at = Address("127.0.0.1", seeder.port)
        common = await other.add(torrent, tmp_path / "other", peers=[at])
        await common.want(dict.fromkeys(range(5, 15), 4))
        await common.wait_for(range(5, 15), stall_timeout_s=20)
        first = await leecher.add(torrent, tmp_path / "out", peers=[at, Address("127.0.0.1", other.port)])
        await first.want(dict.fromkeys(range(20), 4))
        await first.wait_for(range(20), stall_timeout_s=20)
        async with asyncio.timeout(20):
            while first.availability()[:20] != [1] * 5 + [2] * 10 + [1] * 5:
                await first.transfer.changed(0.5)
        await leecher.make_room(first, [30], 10 * PIECE)
        assert [piece for piece in range(20) if first.has(piece)] == [1, 2, 3, 4, 15, 16, 17, 18, 19]


async def test_what_only_a_follower_wanted_is_wanted_no_longer_when_it_ends(tmp_path: Path, torrent: Torrent) -> None:
    async with session() as keeper:
        first = await keeper.add(torrent, tmp_path / "out")  # which knows nobody
        await first.checked()
        await first.want({0: 4})
        async with session() as follower:
            second = await follower.add(torrent, tmp_path / "out")
            await second.checked()
            await second.want({0: 7, 1: 7})
            async with asyncio.timeout(20):
                while first.transfer.wanted != {0: 7, 1: 7}:
                    await first.transfer.changed(0.5)
        async with asyncio.timeout(20):
            while first.transfer.wanted.keys() != {0}:
                await first.transfer.changed(0.5)
        assert first.transfer.n_wanted_missing == 1
