"""Pieces over HTTP: whom a link can make us ask, and what a server's answer costs at most."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from swarm.errors import TransferError
from swarm.torrent import Torrent, create_torrent, http_pieces
from swarm.torrent.attempts import Attempts
from swarm.torrent.http_pieces import read_missing, read_web_piece
from swarm.torrent.transfer import Transfer
from swarm.torrent.web_seeds import WebSeedRenewal

PIECE = 16 << 10


class Server(ThreadingHTTPServer):
    """Answers with `body` whatever is asked; drips: a byte at a time, without end. location: redirects there."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.body = b""
        self.drips = False
        self.location = ""
        self.n_asked = 0
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no error."""


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.n_asked += 1
        self.send_response(302 if self.server.location else 206)
        self.send_header("Location", self.server.location)
        self.end_headers()
        self.wfile.write(self.server.body)
        while self.server.drips and not self.server.closing.wait(0.02):
            self.wfile.write(b"x")


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.closing.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def torrent(tmp_path: Path) -> Torrent:
    path = tmp_path / "w.bin"
    path.write_bytes(hashlib.sha256(b"w").digest() * (PIECE // 32))
    return create_torrent(path, piece_size=PIECE)


def anywhere(_url: str) -> bool:
    return True


def test_what_is_inside_is_not_asked_on_the_word_of_a_server_outside(
    server: Server, torrent: Torrent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first server counts as one on the internet, as no test can reach."""
    outside = server.server_port
    inner = Server()
    thread = threading.Thread(target=inner.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    server.location = inner.url
    peer_of = socket.socket.getpeername

    def getpeername(sock: Any) -> Any:
        host, port = peer_of(sock)
        return ("8.8.8.8" if port == outside else host, port)

    monkeypatch.setattr("socket.socket.getpeername", getpeername, raising=False)
    try:
        with pytest.raises(TransferError, match="inside of this network"):
            read_web_piece(torrent, server.url, 0, anywhere)
    finally:
        inner.shutdown()
        thread.join()
        inner.server_close()
    assert (server.n_asked, inner.n_asked) == (1, 0)


@pytest.mark.parametrize("scheme", ["file", "ftp"])
def test_only_http_is_spoken(scheme: str, server: Server, torrent: Torrent) -> None:
    server.location = f"{scheme}://127.0.0.1:{server.server_port}/etc/passwd"
    with pytest.raises(TransferError):
        read_web_piece(torrent, server.url, 0, anywhere)
    with pytest.raises(TransferError):
        read_web_piece(torrent, server.location, 0, anywhere)
    assert server.n_asked == 1


def test_no_proxy_of_the_environment_is_told(
    server: Server, torrent: Torrent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.body = (tmp_path / "w.bin").read_bytes()
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert read_web_piece(torrent, server.url, 0, anywhere) == server.body


def test_a_server_that_drips_is_left(server: Server, torrent: Torrent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_pieces, "_PIECE_TIMEOUT_S", 0.2)
    server.drips = True
    with pytest.raises(TransferError, match="too slow"):
        read_web_piece(torrent, server.url, 0, anywhere)


async def test_a_liar_is_banned_at_once_and_one_call_reads_at_a_time(server: Server, torrent: Torrent) -> None:
    server.body = bytes(PIECE)
    transfer = Transfer(None, torrent, Attempts(lambda: "off"), starts_blank=False)
    transfer.renewal = WebSeedRenewal((server.url,), 1.0)
    transfer.note_wanted({0: 7})
    transfer.renewal.is_reading = True
    await read_missing(transfer, anywhere)
    assert server.n_asked == 0
    transfer.renewal.is_reading = False
    await read_missing(transfer, anywhere)
    assert transfer.renewal.urls == ()
    assert not transfer.renewal.is_reading
    assert "banned" in transfer.attempts.report()
