"""Other people's BitTorrent clients against ours: aria2 and transmission fetch from us, and we from them alone.

Of hybrid torrents they know the v1 half, as far as they can read them: aria2 from 1.37 on, transmission from 4 on.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import IO
from urllib.parse import parse_qsl, urlsplit

import pytest

from swarm.terms import Address
from swarm.torrent import Download, Magnet, Torrent, TorrentConfig, TorrentSession, create_torrent

PIECE = 64 * 1024
SIZES = {"shard-1.bin": 20 * PIECE + 5, "sub/shard-2.bin": 12 * PIECE, "config.json": 300}

CLIENTS = Path(__file__).parents[2] / ".venv" / "clients"
NEWER_ARIA2 = next(iter(CLIENTS.glob("lib/*/site-packages/aria2c/bin/aria2c")), None)
"""aria2 1.37, as clients.txt has it; Debian 12 has 1.36."""
NEWER_TRANSMISSION = next(iter(CLIENTS.glob("transmission/bin/transmission-cli")), None)
"""Transmission 4, as install_transmission.sh unpacks it; Debian 12 has 3.00."""

needs_aria2 = pytest.mark.skipif(shutil.which("aria2c") is None, reason="aria2c is not installed")
needs_newer_aria2 = pytest.mark.skipif(NEWER_ARIA2 is None, reason="scripts/test could not install clients.txt")
needs_transmission = pytest.mark.skipif(
    shutil.which("transmission-cli") is None, reason="transmission-cli is not installed"
)
needs_newer_transmission = pytest.mark.skipif(
    NEWER_TRANSMISSION is None, reason="scripts/test could not unpack Transmission 4"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A release at <tmp>/seed/model."""
    for name, size in SIZES.items():
        path = tmp_path / "seed" / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.Random(name).randbytes(size))
    return tmp_path / "seed" / "model"


def session() -> TorrentSession:
    return TorrentSession(TorrentConfig.loopback(dht=False))


def free_port() -> int:
    """Below those that the system hands out: nobody who asks it for any port gets this one before its user has it."""
    for port in random.SystemRandom().sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("none of a hundred ports is free")


@contextmanager
def running(*command: str | Path, errors: IO[bytes] | int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[bytes]]:
    null = subprocess.DEVNULL
    process = subprocess.Popen([*map(str, command)], stdin=null, stdout=null, stderr=errors)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def tracker() -> AsyncIterator[str]:
    """An HTTP tracker that knows whoever announced to it. Source: BEP 3, BEP 23."""
    ports: dict[bytes, set[int]] = {}

    open_tasks: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            target = request.split(b" ")[1].decode("latin-1")
            query = dict(parse_qsl(urlsplit(target).query, encoding="latin-1"))
            known = ports.setdefault(query["info_hash"].encode("latin-1"), set())
            known.add(int(query["port"]))
            peers = b"".join(bytes((127, 0, 0, 1)) + port.to_bytes(2, "big") for port in sorted(known))
            body = b"d8:intervali2e12:min intervali1e5:peers%d:%be" % (len(peers), peers)
            writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # a client that left
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(answer(reader, writer))
        open_tasks.add(task)
        task.add_done_callback(open_tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/announce"
    for task in open_tasks:
        task.cancel()
    await asyncio.gather(*open_tasks, return_exceptions=True)


def same(folder: Path, copy: Path) -> bool:
    return all((copy / name).is_file() and (copy / name).read_bytes() == (folder / name).read_bytes() for name in SIZES)


@needs_aria2
async def test_aria2_fetches_from_us_and_we_from_it(tmp_path: Path, folder: Path) -> None:
    """At once, since each spends most of its time on timers of its own."""
    async with tracker() as url, asyncio.TaskGroup() as group:
        torrent = create_torrent(folder, piece_size=PIECE, trackers=[url])
        (tmp_path / "x.torrent").write_bytes(torrent.data)
        group.create_task(aria2_leeches(torrent, folder, str(torrent.magnet()), tmp_path / "by-magnet"))
        group.create_task(aria2_leeches(torrent, folder, str(tmp_path / "x.torrent"), tmp_path / "by-file"))
        group.create_task(aria2_seeds(tmp_path, folder, tmp_path / "from-aria2"))
    for copy in ("by-magnet", "by-file", "from-aria2"):
        assert same(folder, tmp_path / copy / "model"), copy


async def aria2_leeches(torrent: Torrent, folder: Path, source: str, out: Path) -> None:
    async with session() as seeder:
        await seeder.seed(torrent, folder.parent)
        with running(*aria2(out, "--seed-time=0", source)) as process:
            assert await asyncio.to_thread(process.wait, 60) == 0


async def aria2_seeds(tmp_path: Path, folder: Path, out: Path) -> None:
    torrent = create_torrent(folder, piece_size=PIECE)  # without the tracker: aria2 is the only seed that we can find
    (tmp_path / "y.torrent").write_bytes(torrent.data)
    port = free_port()
    command = aria2(folder.parent, "--check-integrity=true", "--seed-ratio=0.0", tmp_path / "y.torrent", port=port)
    async with session() as leecher:
        with running(*command):
            await fetch_all(leecher, torrent, port, folder, out)


@needs_transmission
async def test_transmission_fetches_from_us_and_we_from_it(tmp_path: Path, folder: Path) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(transmission_leeches(tmp_path, folder))
        group.create_task(transmission_seeds(tmp_path, folder))
    for copy in ("to-transmission", "from-transmission"):
        assert same(folder, tmp_path / copy / "model"), copy


async def transmission_leeches(tmp_path: Path, folder: Path) -> None:
    torrent, port, out = create_torrent(folder, piece_size=PIECE), free_port(), tmp_path / "to-transmission"
    out.mkdir()
    async with session() as seeder:
        seed = await seeder.seed(torrent, folder.parent)
        with running(*transmission(tmp_path / "leech-config", out, port), str(torrent.magnet())):
            await dial_until(seed, port, lambda: same(folder, out / "model"))


async def dial_until(seed: Download, port: int, holds: Callable[[], bool], timeout_s: float = 150.0) -> None:
    """Transmission refuses to dial loopback addresses: we dial it, until `holds()`, which nothing announces."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, seed.status()
        seed.add_peers([Address("127.0.0.1", port)])
        await asyncio.sleep(0.25)


async def transmission_seeds(tmp_path: Path, folder: Path) -> None:
    torrent, port = create_torrent(folder, piece_size=PIECE), free_port()
    (tmp_path / "z.torrent").write_bytes(torrent.data)
    async with session() as leecher:
        with running(*transmission(tmp_path / "seed-config", folder.parent, port), tmp_path / "z.torrent"):
            await fetch_all(leecher, torrent, port, folder, tmp_path / "from-transmission")


@needs_newer_aria2
async def test_aria2_fetches_a_hybrid_from_us_and_is_then_our_only_seed(tmp_path: Path, folder: Path) -> None:
    """By a .torrent, by the magnet of both hashes and by that of the v1 hash alone, at once."""
    names = ("by-file", "by-magnet", "by-v1")
    for name in names:
        (tmp_path / name).mkdir()
    await asyncio.gather(*(aria2_leeches_a_hybrid_and_seeds_it(tmp_path / name, folder) for name in names))
    for name in names:
        assert same(folder, tmp_path / name / "ours" / "model"), name


async def aria2_leeches_a_hybrid_and_seeds_it(work: Path, folder: Path) -> None:
    """It seeds what it fetched itself: it takes pad files for files, and lacks them in anybody else's folder."""
    port = free_port()
    async with tracker() as url:
        torrent = create_torrent(folder, piece_size=PIECE, hybrid=True, trackers=[url])
        (work / "x.torrent").write_bytes(torrent.data)
        magnet = torrent.magnet()
        v1 = Magnet(magnet.v1, None, magnet.name, trackers=magnet.trackers)
        source = {"by-file": str(work / "x.torrent"), "by-magnet": str(magnet), "by-v1": str(v1)}[work.name]
        assert NEWER_ARIA2 is not None
        with running(NEWER_ARIA2, *aria2(work / "theirs", "--seed-ratio=0.0", source, port=port)[1:]):
            async with session() as seeder:
                await seeder.seed(torrent, folder.parent)
                await until(lambda: same(folder, work / "theirs" / "model"))
            without_tracker = create_torrent(folder, piece_size=PIECE, hybrid=True)
            assert without_tracker.infohash == torrent.infohash
            async with session() as leecher:
                await fetch_all(leecher, without_tracker, port, folder, work / "ours")


@needs_newer_transmission
async def test_transmission_fetches_a_hybrid_from_us_and_is_then_our_only_seed(tmp_path: Path, folder: Path) -> None:
    """By a .torrent and by the magnet of both hashes, at once."""
    names = ("by-file", "by-magnet")
    for name in names:
        (tmp_path / name / "theirs").mkdir(parents=True)
    await asyncio.gather(*(transmission_leeches_a_hybrid_and_seeds_it(tmp_path / name, folder) for name in names))
    for name in names:
        assert same(folder, tmp_path / name / "ours" / "model"), name


async def transmission_leeches_a_hybrid_and_seeds_it(work: Path, folder: Path) -> None:
    """It seeds what it fetched itself: like aria2, it takes pad files for files."""
    torrent, port, theirs = create_torrent(folder, piece_size=PIECE, hybrid=True), free_port(), work / "theirs"
    (work / "x.torrent").write_bytes(torrent.data)
    source = {"by-file": str(work / "x.torrent"), "by-magnet": str(torrent.magnet())}[work.name]
    assert NEWER_TRANSMISSION is not None
    with running(NEWER_TRANSMISSION, *transmission(work / "config", theirs, port)[1:], source):
        async with session() as seeder:
            seed = await seeder.seed(torrent, folder.parent)
            await dial_until(seed, port, lambda: same(folder, theirs / "model"))
        async with session() as leecher:
            await fetch_all(leecher, torrent, port, folder, work / "ours")


@needs_aria2
def test_aria2_1_36_computes_another_infohash_of_a_hybrid(tmp_path: Path, folder: Path) -> None:
    """When this fails, a newer client has come that can: let it take part in the test above, and tell the README."""
    torrent = create_torrent(folder, piece_size=PIECE, hybrid=True)
    path = tmp_path / "x.torrent"
    path.write_bytes(torrent.data)
    assert torrent.infohash not in told_by("aria2c", "--show-files", path)


@needs_transmission
def test_transmission_3_refuses_a_hybrid_for_the_empty_keys_of_its_file_tree(tmp_path: Path, folder: Path) -> None:
    """BEP 52 prescribes them, within the info dictionary: nothing that we may leave out or write otherwise helps.

    When this fails, the system's Transmission is newer: let it take part in the test above.
    """

    def refuses(data: bytes) -> bool:
        (tmp_path / "x.torrent").write_bytes(data)
        return "Error parsing" in told_by("transmission-show", tmp_path / "x.torrent")

    v1 = create_torrent(folder, piece_size=PIECE).data
    hybrid = create_torrent(folder, piece_size=PIECE, hybrid=True).data
    assert refuses(hybrid)
    assert not refuses(hybrid.replace(b"d0:d6:length", b"d1:xd6:length")), "pads, layers, versions: it minds none of it"
    assert not refuses(v1)
    assert refuses(b"d0:i1e" + v1[1:]), "an empty key anywhere will do"


@needs_transmission
async def test_transmission_3_cannot_parse_a_hybrid_that_a_magnet_brought_either(tmp_path: Path, folder: Path) -> None:
    """It asks by the v1 hash and gets the info dictionary whole."""
    torrent, port, log = create_torrent(folder, piece_size=PIECE, hybrid=True), free_port(), tmp_path / "log"
    magnet = torrent.magnet()
    command = transmission(tmp_path / "config", tmp_path, port)
    async with session() as seeder:
        seed = await seeder.seed(torrent, folder.parent)
        with log.open("wb") as errors:
            with running(*command, str(Magnet(magnet.v1, None, magnet.name)), errors=errors):
                await dial_until(seed, port, lambda: b"checksum passed 1, metainfo parsed 0" in log.read_bytes())


def told_by(*command: str | Path) -> str:
    ran = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=20)
    return ran.stdout + ran.stderr


async def until(holds: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """For what another process does to files, which nothing announces."""
    async with asyncio.timeout(timeout_s):
        while not holds():
            await asyncio.sleep(0.1)


async def fetch_all(leecher: TorrentSession, torrent: Torrent, port: int, folder: Path, out: Path) -> None:
    """From a magnet link that names one foreign peer: metadata, a range, and the rest."""
    download = await leecher.add(torrent.magnet([Address("127.0.0.1", port)]), out)
    assert (await download.metadata(60)).infohash == torrent.infohash
    middle = (folder / "shard-1.bin").read_bytes()[PIECE + 9 : 3 * PIECE]
    assert await download.fetch("shard-1.bin", PIECE + 9, 2 * PIECE - 9, stall_timeout_s=60) == middle
    await download.want(dict.fromkeys(range(torrent.n_pieces), 1))
    await download.wait_for(range(torrent.n_pieces), stall_timeout_s=60)


def aria2(directory: Path, *arguments: str | Path, port: int | None = None) -> tuple[str | Path, ...]:
    quiet = ("--no-conf", "--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false", "--disable-ipv6=true")
    place = ("--interface=127.0.0.1", f"--listen-port={port or free_port()}", f"--dir={directory}")
    return ("aria2c", *quiet, *place, "--file-allocation=none", "--bt-tracker-interval=1", *arguments)


def transmission(config: Path, directory: Path, port: int) -> tuple[str | Path, ...]:
    return "transmission-cli", "-g", config, "-w", directory, "-p", str(port), "-M", "-B"
