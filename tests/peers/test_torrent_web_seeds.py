"""HTTP copies as hubs serve them: redirects to signed addresses that expire, refusals for a while, and liars."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from swarm.errors import TransferStalled
from swarm.torrent import Torrent, TorrentConfig, TorrentSession, create_torrent

PIECE = 64 << 10
COMMIT = "5f0b02c75b57c5855da9ae460ce51323ea669d8a"
SIZES = {"model-00001-of-00002.safetensors": 20 * PIECE + 5, "model-00002-of-00002.safetensors": 12 * PIECE}


class Hub(ThreadingHTTPServer):
    """…/org/model/resolve/<commit>/<file> redirects to a signed address, which is good until expire().

    n_refusals: how many of the next requests are answered with 429 and Retry-After. lies: every byte is flipped.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.epoch = 0
        self.n_refusals = 0
        self.lies = False
        self.answers: list[int] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/org/model/resolve/"

    def expire(self) -> None:
        self.epoch += 1

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        hub, path = self.server, self.path
        if path.startswith("/org/model/resolve/"):
            if hub.n_refusals > 0:
                hub.n_refusals -= 1
                return self.end(429, {"Retry-After": "1"})
            signed = f"/signed/{hub.epoch}/{path.removeprefix('/org/model/resolve/')}"
            return self.end(302, {"Location": f"http://127.0.0.1:{hub.server_port}{signed}"})
        _, _, epoch, file = path.split("/", 3)
        if epoch != str(hub.epoch):
            return self.end(403, {})
        data = (hub.folder / file).read_bytes()
        first, last = (int(n) for n in self.headers["Range"].removeprefix("bytes=").split("-"))
        part = data[first : last + 1]
        part = bytes(byte ^ 0xFF for byte in part) if hub.lies else part
        return self.end(206, {"Content-Range": f"bytes {first}-{last}/{len(data)}"}, part)

    def end(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.server.answers.append(status)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    for name, size in SIZES.items():
        path = tmp_path / "hub" / COMMIT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.Random(name).randbytes(size))
    hub = Hub(tmp_path / "hub")
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield hub
    hub.shutdown()
    thread.join()
    hub.server_close()


@pytest.fixture
def torrent(hub: Hub, tmp_path: Path) -> Torrent:
    """Named by the commit, so that the hub's own addresses are a BEP 19 web seed of it."""
    return create_torrent(tmp_path / "hub" / COMMIT, piece_size=PIECE, web_seeds=(hub.url,))


def session() -> TorrentSession:
    return TorrentSession(TorrentConfig.loopback(dht=False, web_seed_patience_s=1.5))


async def test_signed_addresses_that_expire_are_asked_for_again(tmp_path: Path, hub: Hub, torrent: Torrent) -> None:
    first = next(iter(SIZES))
    async with session() as leecher:
        download = await leecher.add(torrent, tmp_path / "out")
        await download.fetch(first, 0, 8 * PIECE, stall_timeout_s=20)
        hub.expire()
        await download.fetch(first, 8 * PIECE, 8 * PIECE, stall_timeout_s=20)
        assert 403 in hub.answers
        hub.expire()
        for name, size in SIZES.items():
            data = await download.fetch(name, 0, size, stall_timeout_s=20)
            assert data == (hub.folder / COMMIT / name).read_bytes()


async def test_a_hub_that_refuses_for_a_while_is_asked_again(tmp_path: Path, hub: Hub, torrent: Torrent) -> None:
    hub.n_refusals = 3
    async with session() as leecher:
        download = await leecher.add(torrent, tmp_path / "out")
        for name, size in SIZES.items():
            data = await download.fetch(name, 0, size, stall_timeout_s=20)
            assert data == (hub.folder / COMMIT / name).read_bytes()
    assert hub.answers.count(429) == 3
    assert len(hub.answers) < 40, "not hammered"


async def test_a_web_seed_that_lies_gives_nothing_and_is_named(tmp_path: Path, hub: Hub, torrent: Torrent) -> None:
    hub.lies = True
    async with session() as leecher:
        download = await leecher.add(torrent, tmp_path / "out")
        assert download.transfer.renewal is not None
        async with asyncio.timeout(60):
            while download.transfer.renewal.urls:  # until it is found out; each try ends with what is known by then
                with contextlib.suppress(TransferStalled):
                    await download.fetch(next(iter(SIZES)), 0, PIECE, stall_timeout_s=1.0)
        with pytest.raises(TransferStalled, match=r"wrong bytes.*web seeds: .*banned: it sent data that fails"):
            await download.fetch(next(iter(SIZES)), 0, PIECE, stall_timeout_s=1.0)
        assert not any(download.has(piece) for piece in range(torrent.n_pieces))
        n_answers = len(hub.answers)
        assert download.transfer.renewal is not None
        assert download.transfer.renewal.urls == ()
        assert n_answers < 40
