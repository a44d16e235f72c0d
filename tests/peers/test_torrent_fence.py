"""A loopback session stays on the machine, rate limits hold for local peers, and a web seed is enough to fetch from."""

from __future__ import annotations

import asyncio
import os
import random
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from swarm.errors import MetadataTimeout
from swarm.terms import Address
from swarm.torrent import Magnet, Torrent, TorrentConfig, TorrentSession, create_torrent

PIECE = 64 * 1024
SIZE = 16 * PIECE


@pytest.fixture
def torrent(tmp_path: Path) -> Torrent:
    (tmp_path / "seed" / "model").mkdir(parents=True)
    (tmp_path / "seed" / "model" / "w.bin").write_bytes(random.Random(1).randbytes(SIZE))
    return create_torrent(tmp_path / "seed" / "model", piece_size=PIECE)


def local_hosts_of_our_sockets() -> set[str]:
    """The IPv4 hosts that this process's TCP and UDP sockets are bound to. Linux only."""
    ours = set()
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            ours.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        except OSError:
            continue  # the listing's own descriptor is gone by now
    hosts = set()
    for table in ("tcp", "udp", "tcp6", "udp6"):
        for line in Path(f"/proc/self/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if f"socket:[{fields[9]}]" in ours:
                hosts.add(fields[1].split(":")[0])
    return hosts


@pytest.mark.skipif(not Path("/proc/self/net/tcp").exists(), reason="needs Linux's /proc")
async def test_nothing_leaves_the_machine(tmp_path: Path) -> None:
    outside = Magnet(
        "ab" * 20,
        None,
        trackers=("udp://tracker.example.org:1337/announce", "http://198.51.100.1/announce"),
        web_seeds=("http://198.51.100.1/files/",),
        peers=(Address("198.51.100.1", 7), Address("peer.example.org", 7)),
    )
    config = TorrentConfig.loopback(dht_bootstrap=(Address("198.51.100.1", 7), Address("203.0.113.1", 7)))
    async with TorrentSession(config) as session:
        download = await session.add(outside, tmp_path)
        with pytest.raises(MetadataTimeout) as caught:
            await download.metadata(1.5)
        assert str(caught.value).count("left out: this session stays on this machine") == 5
        assert local_hosts_of_our_sockets() == {"0100007F"}


async def test_an_upload_limit_holds_for_local_peers(tmp_path: Path, torrent: Torrent) -> None:
    """Half of the torrent would take half a minute at this rate; without it, less than the start of a transfer."""
    limited, unlimited = TorrentConfig.loopback(dht=False, upload_rate=16_000), TorrentConfig.loopback(dht=False)
    async with (
        TorrentSession(limited) as slow_seeder,
        TorrentSession(unlimited) as seeder,
        TorrentSession(unlimited) as slow_leecher,
        TorrentSession(unlimited) as leecher,
    ):
        await slow_seeder.seed(torrent, tmp_path / "seed")
        await seeder.seed(torrent, tmp_path / "seed")
        slow_at, at = Address("127.0.0.1", slow_seeder.port), Address("127.0.0.1", seeder.port)
        slow = await slow_leecher.add(torrent, tmp_path / "slow", peers=[slow_at])
        await slow.want(dict.fromkeys(range(torrent.n_pieces), 1))
        async with asyncio.timeout(30.0):
            while (await slow.refresh()).fetched_bytes == 0:
                await slow.transfer.changed(None)
        download = await leecher.add(torrent, tmp_path / "out", peers=[at])
        await download.fetch("w.bin", 0, SIZE, stall_timeout_s=20)
        assert (await slow.refresh()).have_bytes < SIZE / 2


class _Files(BaseHTTPRequestHandler):
    """Serves `root` with Range, which BEP 19 needs."""

    protocol_version = "HTTP/1.1"
    root: Path

    def do_GET(self) -> None:
        data = (self.root / self.path.lstrip("/")).read_bytes()
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"])
        assert match is not None
        first, last = int(match[1]), int(match[2])
        self.send_response(206)
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.end_headers()
        self.wfile.write(data[first : last + 1])

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def web_server(root: Path) -> Iterator[str]:
    handler = type("Files", (_Files,), {"root": root})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


async def test_a_web_seed_alone_is_enough(tmp_path: Path, torrent: Torrent) -> None:
    with web_server(tmp_path / "seed") as url:
        published = create_torrent(tmp_path / "seed" / "model", piece_size=PIECE, web_seeds=[url])
        async with TorrentSession(TorrentConfig.loopback(dht=False)) as leecher:
            download = await leecher.add(published, tmp_path / "out")
            data = await download.fetch("w.bin", 3 * PIECE + 5, 2 * PIECE, stall_timeout_s=20)
            assert data == (tmp_path / "seed" / "model" / "w.bin").read_bytes()[3 * PIECE + 5 : 5 * PIECE + 5]
            assert download.status().have_bytes == 3 * PIECE
