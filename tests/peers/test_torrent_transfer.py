"""Real sessions on loopback: what is wanted comes, nothing else does, and a restart fetches nothing twice."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from swarm.errors import BadArgument, ListenError, LocalProtocolError, MetadataTimeout, TransferError, TransferStalled
from swarm.terms import Address
from swarm.torrent import Magnet, Torrent, TorrentConfig, TorrentSession, create_torrent

KIB = 1024
PIECE = 64 * KIB
SIZES = {"shard-1.bin": 20 * PIECE + 5, "shard-2.bin": 12 * PIECE, "config.json": 300, "sub/empty": 0}


@pytest.fixture
def torrent(tmp_path: Path, request: pytest.FixtureRequest) -> Torrent:
    """A release in <tmp>/seed/model; v1 unless the test asks for another."""
    for name, size in SIZES.items():
        path = tmp_path / "seed" / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.Random(name).randbytes(size))
    return create_torrent(
        tmp_path / "seed" / "model", piece_size=PIECE, hybrid=getattr(request, "param", "v1") == "hybrid"
    )


def session(**overrides: object) -> TorrentSession:
    return TorrentSession(TorrentConfig.loopback(**{"dht": False, **overrides}))


def at(peer: TorrentSession) -> Address:
    return Address("127.0.0.1", peer.port)


def block_bytes(torrent: Torrent, pieces: set[int]) -> int:
    """What these pieces cost on the network: the block that a pad cuts short travels with its zeros."""
    if not any(entry.is_pad for entry in torrent.files):
        return sum(torrent.piece_bytes(piece) for piece in pieces)
    return sum(-(-torrent.piece_bytes(piece) // (16 * KIB)) * 16 * KIB for piece in pieces)


def expected(tmp_path: Path, file: str) -> bytes:
    return (tmp_path / "seed" / "model" / file).read_bytes()


both_versions = pytest.mark.parametrize("torrent", ["v1", "hybrid"], indirect=True)


@both_versions
async def test_from_magnet_to_the_whole_release(tmp_path: Path, torrent: Torrent) -> None:
    async with session() as seeder, session() as leecher:
        seed = await seeder.seed(torrent, tmp_path / "seed")
        assert seed.status().state == "seeding"
        magnet = Magnet.parse(str(torrent.magnet([at(seeder)])))
        download = await leecher.add(magnet, tmp_path / "out")
        assert download.status().state == "metadata"
        got = await download.metadata(10)
        assert (got.infohash, got.files) == (torrent.infohash, torrent.files)
        everything = range(torrent.n_pieces)
        await download.want(dict.fromkeys(everything, 1))
        await download.wait_for(everything, stall_timeout_s=20)
        status = download.status()
        assert status.state == "seeding"
        assert status.have_bytes == torrent.total_bytes
    for name in SIZES:
        assert (tmp_path / "out" / "model" / name).read_bytes() == expected(tmp_path, name)


@both_versions
@pytest.mark.parametrize("by_magnet", [True, False])
async def test_only_what_is_wanted_comes(tmp_path: Path, torrent: Torrent, by_magnet: bool) -> None:
    async with session() as seeder, session() as leecher:
        await seeder.seed(torrent, tmp_path / "seed", verified=True)
        source = torrent.magnet() if by_magnet else torrent
        download = await leecher.add(source, tmp_path / "out", peers=[at(seeder)])
        await download.metadata(10)
        assert await download.fetch("config.json", 10, 20) == expected(tmp_path, "config.json")[10:30]
        pieces = torrent.pieces_of("shard-1.bin", 3 * PIECE + 1, 4 * PIECE)
        await download.want({piece: 1 + n for n, piece in enumerate(pieces)})
        await download.wait_for(pieces, stall_timeout_s=20)
        status = await download.refresh()
        wanted = {*pieces, *torrent.pieces_of("config.json")}
        assert {piece for piece in range(torrent.n_pieces) if download.has(piece)} == wanted
        assert status.have_bytes == sum(torrent.piece_bytes(piece) for piece in wanted)
        assert status.fetched_bytes == block_bytes(torrent, wanted)
        assert status.state == "idle"
        # At its true offset in the true file, nothing beside it.
        with download.file_path("shard-1.bin").open("rb") as file:
            file.seek(3 * PIECE + 1)
            assert file.read(4 * PIECE) == expected(tmp_path, "shard-1.bin")[3 * PIECE + 1 : 7 * PIECE + 1]
        found = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
        notes = {f".{torrent.infohash}.{what}" for what in ("lock", "have", "hosted", "torrent")}
        assert found - notes <= {"shard-1.bin", "shard-2.bin", "config.json", "empty"}


async def test_pieces_arrive_in_order_of_priority(tmp_path: Path, torrent: Torrent) -> None:
    async with session(upload_rate=2_000_000) as seeder, session() as leecher:
        await seeder.seed(torrent, tmp_path / "seed", verified=True)
        download = await leecher.add(torrent, tmp_path / "out", peers=[at(seeder)])
        first = torrent.pieces_of("shard-2.bin")
        last = [piece for piece in torrent.pieces_of("shard-1.bin") if piece not in first]
        await download.want({**dict.fromkeys(last, 1), **dict.fromkeys(first, 7)})
        await download.wait_for([*first, *last], stall_timeout_s=20)
        order = download.transfer.arrivals
        mean_place = sum(order.index(piece) for piece in first) / len(first)
        assert mean_place < len(first), f"{first} came as {order}"


@both_versions
async def test_a_restart_fetches_and_hashes_nothing_twice(tmp_path: Path, torrent: Torrent) -> None:
    pieces = torrent.pieces_of("shard-2.bin")
    async with session() as seeder:
        await seeder.seed(torrent, tmp_path / "seed", verified=True)
        async with session() as leecher:
            download = await leecher.add(torrent.magnet([at(seeder)]), tmp_path / "out")
            await download.metadata(10)
            await download.want(dict.fromkeys(pieces, 1))
            await download.wait_for(pieces, stall_timeout_s=20)
        async with session() as leecher:
            download = await leecher.add(torrent.magnet([at(seeder)]), tmp_path / "out")
            await download.metadata(0)  # kept in the resume file
            await download.checked()
            assert {piece for piece in range(torrent.n_pieces) if download.has(piece)} == set(pieces)
            await download.want(dict.fromkeys(pieces, 1))
            await download.wait_for(pieces, stall_timeout_s=20)
            assert (await download.refresh()).fetched_bytes == 0
            assert await download.fetch("config.json", 0, 300) == expected(tmp_path, "config.json")
            config = set(torrent.pieces_of("config.json"))
            assert (await download.refresh()).fetched_bytes == block_bytes(torrent, config - set(pieces))


@both_versions
@pytest.mark.parametrize("resume_file", ["missing", "damaged", "kept"])
async def test_what_is_on_disk_is_hashed_again_when_its_record_is_not_to_be_trusted(
    tmp_path: Path, torrent: Torrent, resume_file: str
) -> None:
    pieces = torrent.pieces_of("shard-2.bin")
    async with session() as seeder:
        await seeder.seed(torrent, tmp_path / "seed", verified=True)
        async with session() as leecher:
            download = await leecher.add(torrent, tmp_path / "out", peers=[at(seeder)])
            await download.want(dict.fromkeys(pieces, 1))
            await download.wait_for(pieces, stall_timeout_s=20)
        record = tmp_path / "out" / f".{torrent.infohash}.resume"
        if resume_file == "missing":
            record.unlink()
        elif resume_file == "damaged":
            record.write_bytes(record.read_bytes()[:-100])
        with (tmp_path / "out" / "model" / "shard-2.bin").open("r+b") as file:
            file.seek(PIECE + 7)
            file.write(b"changed by somebody else")
        async with session() as leecher:
            download = await leecher.add(torrent, tmp_path / "out", peers=[at(seeder)])
            await download.checked()
            changed = set(torrent.pieces_of("shard-2.bin", PIECE + 7, 1))
            assert {piece for piece in pieces if not download.has(piece)} == changed
            data = await download.fetch("shard-2.bin", 0, SIZES["shard-2.bin"])
            assert data == expected(tmp_path, "shard-2.bin")
            assert (await download.refresh()).fetched_bytes == PIECE


async def test_two_partial_peers_complete_a_third(tmp_path: Path, torrent: Torrent) -> None:
    halves = range(torrent.n_pieces // 2), range(torrent.n_pieces // 2, torrent.n_pieces)
    async with session() as one, session() as two, session() as third:
        async with session() as seeder:
            await seeder.seed(torrent, tmp_path / "seed", verified=True)
            for peer, half in ((one, halves[0]), (two, halves[1])):
                download = await peer.add(torrent, tmp_path / f"half-{half.start}", peers=[at(seeder)])
                await download.want(dict.fromkeys(half, 1))
                await download.wait_for(half, stall_timeout_s=20)
        download = await third.add(torrent.magnet([at(one), at(two)]), tmp_path / "out")
        await download.metadata(10)
        await download.want(dict.fromkeys(range(torrent.n_pieces), 1))
        await download.wait_for(range(torrent.n_pieces), stall_timeout_s=20)
        assert download.status().have_bytes == torrent.total_bytes


async def test_a_peer_that_starts_late_is_found(tmp_path: Path, torrent: Torrent) -> None:
    async with session() as placeholder:
        address = at(placeholder)
    async with session() as leecher:
        download = await leecher.add(torrent.magnet([address]), tmp_path / "out")
        with pytest.raises(MetadataTimeout, match="refused"):
            await download.metadata(0.5)
        async with session(listen=address) as seeder:
            await seeder.seed(torrent, tmp_path / "seed", verified=True)
            await download.metadata(10)
            assert await download.fetch("config.json", 0, 300) == expected(tmp_path, "config.json")


async def test_metadata_timeout_says_what_was_tried(tmp_path: Path, torrent: Torrent) -> None:
    async with session() as placeholder:
        closed = at(placeholder)
    magnet = Magnet(
        torrent.v1,
        None,
        trackers=(f"http://127.0.0.1:{closed.port}/announce", "udp://tracker.example.org:1337/announce"),
        peers=(closed, Address("198.51.100.1", 7), Address("peer.example.org", 8)),
    )
    async with session() as leecher:
        download = await leecher.add(magnet, tmp_path / "out")
        with pytest.raises(MetadataTimeout) as caught:
            async with asyncio.timeout(30.0):
                await download.metadata(1.0)
        says = str(caught.value)
        assert f"{closed} (Connection refused)" in says
        assert f"127.0.0.1:{closed.port}/announce (Connection refused)" in says
        assert "tracker.example.org:1337/announce (left out: this session stays on this machine)" in says
        assert "198.51.100.1:7 (left out" in says
        assert "peer.example.org:8 (left out" in says
        assert "DHT: off" in says
    async with session(dht=True) as leecher:
        download = await leecher.add(Magnet(torrent.v1, None), tmp_path / "out")
        with pytest.raises(
            MetadataTimeout, match="trackers: none given; peers: none given; DHT: no node given or known"
        ):
            await download.metadata(0.1)


async def test_a_stall_says_how_far_it_came(tmp_path: Path, torrent: Torrent) -> None:
    async with session() as leecher:
        download = await leecher.add(torrent, tmp_path / "out")
        await download.want({0: 1, 1: 1})
        with pytest.raises(TransferStalled, match=r"2 wanted pieces are missing. Connected: 0 peers"):
            await download.wait_for([0, 1], stall_timeout_s=0.2)
        with pytest.raises(LocalProtocolError, match="never wanted"):
            await download.wait_for([2])
        with pytest.raises(BadArgument, match=r"priorities 1..7"):
            await download.want({0: 0})
        with pytest.raises(BadArgument, match="pieces are"):
            await download.want({torrent.n_pieces: 1})
        with pytest.raises(BadArgument, match="not a file"):
            await download.fetch("nope", 0, 1)
        assert await download.fetch("config.json", 5, 0) == b""


async def test_closing_the_session_ends_every_wait(tmp_path: Path, torrent: Torrent) -> None:
    leecher = session()
    await leecher.start()
    known = await leecher.add(torrent, tmp_path / "out")
    unknown = await leecher.add(Magnet("ab" * 20, None), tmp_path / "out")
    await known.want({0: 1})
    waits = [asyncio.ensure_future(known.wait_for([0])), asyncio.ensure_future(unknown.metadata(60))]
    await asyncio.wait(waits, timeout=0.05)
    await leecher.close()
    for outcome in await asyncio.gather(*waits, return_exceptions=True):
        assert isinstance(outcome, TransferError)
        assert "closed" in str(outcome)
    await leecher.close()  # twice is once
    with pytest.raises(LocalProtocolError, match="not running"):
        await leecher.add(torrent, tmp_path / "out")


async def test_a_taken_port_is_a_listen_error() -> None:
    async with session() as first:
        with pytest.raises(ListenError, match=str(first.port)):
            await session(listen=at(first)).start()
    with pytest.raises(ListenError):
        await session(listen=Address("198.51.100.1", 0)).start()


async def test_adding_twice_is_adding_once(tmp_path: Path, torrent: Torrent) -> None:
    async with session() as leecher:
        first = await leecher.add(torrent.magnet(), tmp_path / "out")
        assert await leecher.add(torrent.magnet(), tmp_path / "out") is first
        with pytest.raises(BadArgument, match="already open"):
            await leecher.add(torrent, tmp_path / "elsewhere")


async def test_dropped_pieces_leave_the_disk_and_can_be_fetched_again(tmp_path: Path, torrent: Torrent) -> None:
    async with session() as seeder, session() as leecher:
        seed = await seeder.seed(torrent, tmp_path / "seed")
        download = await leecher.add(torrent, tmp_path / "out", peers=[at(seeder)])
        everything = range(torrent.n_pieces)
        await download.fetch("shard-1.bin", 0, SIZES["shard-1.bin"])
        kept = set(torrent.pieces_of("shard-1.bin", 0, 1)) | {everything[-1]}
        wanted_before = set(download.transfer.wanted)
        await leecher.drop(download, everything)
        assert {piece for piece in everything if download.has(piece)} == wanted_before, "what is wanted stays"
    async with session() as leecher:
        download = await leecher.add(torrent, tmp_path / "out", peers=[at(seeder)])
        await download.checked()
        before = download.file_path("shard-1.bin").stat()
        assert before.st_blocks * 512 >= 20 * PIECE
        await leecher.drop(download, set(everything) - kept)
        after = download.file_path("shard-1.bin").stat()
        assert after.st_size == before.st_size
        assert after.st_blocks * 512 <= 2 * PIECE
        assert {piece for piece in everything if download.has(piece)} == kept & wanted_before
        assert await download.fetch("shard-1.bin", 0, 100) == expected(tmp_path, "shard-1.bin")[:100]
    assert seed.infohash == torrent.infohash
    async with session() as seeder, session() as leecher:
        seed = await seeder.seed(torrent, tmp_path / "seed")
        download = await leecher.add(torrent, tmp_path / "out", peers=[at(seeder)])
        await download.checked()
        assert {piece for piece in everything if download.has(piece)} == kept & wanted_before, (
            "and the resume file knows"
        )
        assert await download.fetch("shard-1.bin", 0, SIZES["shard-1.bin"]) == expected(tmp_path, "shard-1.bin")


async def test_the_share_ratio_outlives_the_session(tmp_path: Path, torrent: Torrent) -> None:
    async with session() as seeder:
        await seeder.seed(torrent, tmp_path / "seed")
        for round_idx in (1, 2):
            async with session() as middle, session() as last:
                first = await middle.add(torrent, tmp_path / "middle", peers=[at(seeder)])
                await first.fetch("config.json", 0, 300)
                second = await last.add(torrent, tmp_path / f"last-{round_idx}", peers=[at(middle)])
                assert await second.fetch("config.json", 0, 300) == expected(tmp_path, "config.json")
                async with asyncio.timeout(20):  # libtorrent counts once a second
                    while (status := await first.refresh()).uploaded_ever_bytes < round_idx * PIECE:
                        await first.transfer.changed(0.5)
                assert (status.fetched_ever_bytes, status.share_ratio) == (PIECE, round_idx)
