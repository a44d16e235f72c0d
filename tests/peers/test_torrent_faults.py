"""Poisoned seeders, full disks, killed processes, damaged files: nothing wrong is accepted, nothing right is lost."""

from __future__ import annotations

import asyncio
import hashlib
import random
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import libtorrent as lt
import pytest

from swarm.errors import CorruptRelease, DiskFull, TransferError, TransferStalled, VerificationError
from swarm.terms import Address
from swarm.torrent import Torrent, TorrentConfig, TorrentSession, create_torrent

KIB = 1024
PIECE = 64 * KIB
SIZE = 40 * PIECE


@pytest.fixture
def torrent(tmp_path: Path) -> Torrent:
    for folder in ("good", "bad"):
        path = tmp_path / folder / "model" / "w.bin"
        path.parent.mkdir(parents=True)
        path.write_bytes(random.Random(1).randbytes(SIZE))
    return create_torrent(tmp_path / "good" / "model", piece_size=PIECE)


def session(**overrides: object) -> TorrentSession:
    return TorrentSession(TorrentConfig.loopback(**{"dht": False, **overrides}))


def at(peer: TorrentSession) -> Address:
    return Address("127.0.0.1", peer.port)


def poison(path: Path, n_bytes: int = SIZE) -> None:
    """Flip every byte of each piece's second torrent block."""
    with path.open("r+b") as file:
        for start in range(16 * KIB, n_bytes, PIECE):
            file.seek(start)
            block = file.read(16 * KIB)
            file.seek(start)
            file.write(bytes(byte ^ 0xFF for byte in block))


def everything(torrent: Torrent) -> range:
    return range(torrent.n_pieces)


async def test_a_poisoned_seeder_is_banned_and_the_honest_one_serves(tmp_path: Path, torrent: Torrent) -> None:
    # The honest seeder is slow, so that the poisoned one is asked for plenty.
    async with session() as bad, session(upload_rate=3_000_000) as good, session() as leecher:
        await bad.seed(torrent, tmp_path / "bad")
        poison(tmp_path / "bad" / "model" / "w.bin")
        await good.seed(torrent, tmp_path / "good")
        download = await leecher.add(torrent.magnet([at(bad)]), tmp_path / "out")
        await download.metadata(10)
        await download.want(dict.fromkeys(everything(torrent), 1))
        with pytest.raises(TransferStalled, match=f"wrong bytes; banned for that: {at(bad)}"):
            await download.wait_for(everything(torrent), stall_timeout_s=1.0)
        assert not any(download.has(piece) for piece in everything(torrent))
        wasted = download.status().fetched_bytes
        download.add_peers([at(good)])
        await download.wait_for(everything(torrent), stall_timeout_s=20)
        assert (tmp_path / "out" / "model" / "w.bin").read_bytes() == (tmp_path / "good/model/w.bin").read_bytes()
        print(f"one poisoned seeder cost {wasted / PIECE:.1f} pieces")
        assert wasted < SIZE / 2


async def test_poisoned_and_honest_seeders_at_once(tmp_path: Path, torrent: Torrent) -> None:
    async with session() as bad, session() as good, session() as leecher:
        await bad.seed(torrent, tmp_path / "bad")
        poison(tmp_path / "bad" / "model" / "w.bin")
        await good.seed(torrent, tmp_path / "good")
        download = await leecher.add(torrent.magnet([at(bad), at(good)]), tmp_path / "out")
        await download.metadata(10)
        await download.want(dict.fromkeys(everything(torrent), 1))
        await download.wait_for(everything(torrent), stall_timeout_s=30)
        assert (tmp_path / "out" / "model" / "w.bin").read_bytes() == (tmp_path / "good/model/w.bin").read_bytes()


async def test_a_folder_that_differs_is_not_seeded(tmp_path: Path, torrent: Torrent) -> None:
    weights = tmp_path / "bad" / "model" / "w.bin"
    poison(weights, PIECE)
    before = weights.read_bytes()
    async with session() as seeder:
        with pytest.raises(VerificationError, match=r"1 of 40 pieces differ, in w\.bin"):
            await seeder.seed(torrent, tmp_path / "bad")
        assert weights.read_bytes() == before, "seeding never writes"
        await seeder.seed(torrent, tmp_path / "good")  # the failed attempt left nothing behind
        weights.write_bytes(before[:-1])
    async with session() as seeder:
        with pytest.raises(VerificationError, match="bytes where the torrent says"):
            await seeder.seed(torrent, tmp_path / "bad")
        weights.unlink()
        with pytest.raises(VerificationError, match="No such file"):
            await seeder.seed(torrent, tmp_path / "bad")


async def test_a_changed_file_is_noticed_when_it_is_read(tmp_path: Path, torrent: Torrent) -> None:
    async with session() as seeder, session() as leecher:
        await seeder.seed(torrent, tmp_path / "good")
        download = await leecher.add(torrent, tmp_path / "out", peers=[at(seeder)])
        await download.fetch("w.bin", 0, PIECE)
        poison(download.file_path("w.bin"), PIECE)
        with pytest.raises(VerificationError, match="changed on disk"):
            await download.fetch("w.bin", 0, 1)


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Path]:
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


async def test_a_full_disk_says_so_and_the_fetch_goes_on_once_there_is_room(tmp_path: Path, torrent: Torrent) -> None:
    with small_disk(tmp_path / "disk", SIZE + 8 * PIECE) as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(20 * PIECE))
        async with session() as seeder, session() as leecher:
            await seeder.seed(torrent, tmp_path / "good")
            download = await leecher.add(torrent.magnet([at(seeder)]), disk)
            await download.metadata(10)
            await download.want(dict.fromkeys(everything(torrent), 1))
            for _ in range(2):  # trying again without making room fails again
                with pytest.raises(DiskFull, match=r"w\.bin cannot grow: No space left.*Free space"):
                    await download.wait_for(everything(torrent), stall_timeout_s=20)
            assert download.status().state == "disk-error"
            kept = {piece for piece in everything(torrent) if download.has(piece)}
            ballast.unlink()
            await download.wait_for(everything(torrent), stall_timeout_s=20)
            assert kept <= {piece for piece in everything(torrent) if download.has(piece)}
            assert (disk / "model" / "w.bin").read_bytes() == (tmp_path / "good/model/w.bin").read_bytes()


async def test_an_unwritable_place_is_an_error_with_its_path(tmp_path: Path, torrent: Torrent) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model").write_bytes(b"a file where the folder should be")
    async with session() as seeder, session() as leecher:
        await seeder.seed(torrent, tmp_path / "good")
        download = await leecher.add(torrent, tmp_path / "out", peers=[at(seeder)])
        with pytest.raises(TransferError, match="model") as caught:
            await download.fetch("w.bin", 0, 1, stall_timeout_s=20)
        assert not isinstance(caught.value, (DiskFull, TransferStalled))
        (tmp_path / "out" / "model").unlink()
        data = await download.fetch("w.bin", 0, 10, stall_timeout_s=20)  # mended: it goes on
        assert data == (tmp_path / "good" / "model" / "w.bin").read_bytes()[:10]


_VICTIM = """
    import asyncio, sys
    from pathlib import Path
    from swarm.terms import Address
    from swarm.torrent import Torrent, TorrentConfig, TorrentSession

    async def main(torrent_file, out, peer):
        async with TorrentSession(TorrentConfig.loopback(dht=False)) as session:
            torrent = Torrent.load(Path(torrent_file))
            download = await session.add(torrent, Path(out), peers=[Address.parse(peer)])
            await download.want(dict.fromkeys(range(torrent.n_pieces), 1))
            while len(download.transfer.arrivals) < 5:
                await download.transfer.changed(None)
            await download.save_resume()
            while len(download.transfer.arrivals) < 10:
                await download.transfer.changed(None)
            print("ten pieces", flush=True)
            await asyncio.Event().wait()

    asyncio.run(main(*sys.argv[1:]))
"""


async def test_after_a_kill_nothing_verified_is_fetched_again(tmp_path: Path, torrent: Torrent) -> None:
    (tmp_path / "x.torrent").write_bytes(torrent.data)
    async with session(upload_rate=1_000_000) as seeder:
        await seeder.seed(torrent, tmp_path / "good")
        arguments = [str(tmp_path / "x.torrent"), str(tmp_path / "out"), str(at(seeder))]
        command = [sys.executable, "-c", textwrap.dedent(_VICTIM), *arguments]
        victim = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert victim.stdout is not None
        assert await victim.stdout.readline() == b"ten pieces\n"
        victim.kill()
        await victim.communicate()
    async with session() as seeder, session() as leecher:
        seed = await seeder.seed(torrent, tmp_path / "good")
        download = await leecher.add(torrent, tmp_path / "out", peers=[at(seeder)])
        await download.checked()
        n_kept = sum(download.has(piece) for piece in everything(torrent))
        assert n_kept >= 10
        await download.want(dict.fromkeys(everything(torrent), 1))
        await download.wait_for(everything(torrent), stall_timeout_s=20)
        assert download.status().fetched_bytes <= SIZE - n_kept * PIECE
        assert (await seed.refresh()).uploaded_bytes <= SIZE - n_kept * PIECE


def everything_below(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


async def test_paths_that_lead_out_of_the_root_lead_nowhere(tmp_path: Path) -> None:
    """Links in a torrent are refused; what has dots or an absolute path lands below save_dir."""
    data = random.Random(5).randbytes(3 * 1000)
    files: list[dict[bytes, object]] = [
        {b"length": 1000, b"path": [b"..", b"..", b"evil-1.bin"]},
        {b"length": 1000, b"path": [b"/", b"evil-2.bin"]},
        {b"length": 0, b"attr": b"l", b"path": [b"link"], b"symlink path": [b"..", b"..", b"victim"]},
        {b"length": 1000, b"path": [b"link", b"evil-3.bin"]},
    ]
    info = {b"name": b"../model", b"piece length": PIECE, b"pieces": hashlib.sha1(data).digest(), b"files": files}
    with pytest.raises(CorruptRelease, match="contains a symbolic link, 'link'"):
        Torrent.from_info(lt.bencode(info))
    del files[2]
    torrent = Torrent.from_info(lt.bencode(info))
    at_byte = 0
    for entry in torrent.files:
        if entry.size_bytes and not entry.is_pad:
            path = torrent.path_in(tmp_path / "evil" / "deep", entry.path)
            assert path.resolve().is_relative_to(tmp_path / "evil" / "deep")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data[at_byte : at_byte + entry.size_bytes])
            at_byte += entry.size_bytes
    before = everything_below(tmp_path)
    async with session() as seeder, session() as leecher:
        await seeder.seed(torrent, tmp_path / "evil" / "deep")
        download = await leecher.add(torrent, tmp_path / "out" / "deep", peers=[at(seeder)])
        await download.want({0: 7})
        await download.wait_for([0], stall_timeout_s=20)
    new = everything_below(tmp_path) - before - {tmp_path / "out", tmp_path / "out" / "deep"}
    assert new
    assert all(path.is_relative_to(tmp_path / "out" / "deep") for path in new)
