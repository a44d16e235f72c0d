"""What the settings do to real sessions: encryption, proxy, and rates of this hour."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from base64 import b64decode
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from swarm.errors import TransferStalled
from swarm.terms import Address
from swarm.torrent import Torrent, TorrentConfig, TorrentSession, create_torrent, with_settings

PIECE = 64 << 10


@pytest.fixture
def torrent(tmp_path: Path) -> Torrent:
    (tmp_path / "seed" / "model").mkdir(parents=True)
    (tmp_path / "seed" / "model" / "w.bin").write_bytes(random.Random(1).randbytes(8 * PIECE))
    return create_torrent(tmp_path / "seed" / "model", piece_size=PIECE)


def session(*settings: str) -> TorrentSession:
    return TorrentSession(with_settings(TorrentConfig.loopback(dht=False), settings))


def at(peer: TorrentSession) -> Address:
    return Address("127.0.0.1", peer.port)


async def test_required_encryption_needs_it_on_both_sides(tmp_path: Path, torrent: Torrent) -> None:
    async with session("encryption=required") as seeder, session("encryption=off") as plain, session() as willing:
        await seeder.seed(torrent, tmp_path / "seed")
        download = await plain.add(torrent, tmp_path / "plain", peers=[at(seeder)])
        with pytest.raises(TransferStalled):
            await download.fetch("w.bin", 0, 1, stall_timeout_s=1.5)
        download = await willing.add(torrent, tmp_path / "willing", peers=[at(seeder)])
        assert len(await download.fetch("w.bin", 0, 8 * PIECE, stall_timeout_s=20)) == 8 * PIECE


async def test_rates_of_this_hour_are_in_force(tmp_path: Path, torrent: Torrent) -> None:
    async with session("upload-rate=9M", "schedule=00:00-24:00=3M/4M") as seeder:
        seed = await seeder.seed(torrent, tmp_path / "seed")
        async with asyncio.timeout(20):
            while seeder.rates != (3_000_000, 4_000_000):
                await seed.transfer.changed(0.5)


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter, list[tuple[int, str]]], Awaitable[None]]


@pytest.mark.parametrize(
    ("kind", "login"), [("socks5", ""), ("socks5", "me:s3cret@"), ("http", ""), ("http", "me:s3cret@")]
)
async def test_peers_are_reached_through_the_proxy(tmp_path: Path, torrent: Torrent, kind: str, login: str) -> None:
    """All of it, and nothing beside it: the seeder sees the proxy alone."""
    dialled: list[tuple[int, str]] = []
    serving: set[asyncio.Task[None]] = set()
    serve_as: Serve = {"socks5": _socks5, "http": _http_connect}[kind]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError), contextlib.closing(writer):
            await serve_as(reader, writer, dialled)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    outside = TorrentConfig(Address("0.0.0.0", 0), dht=False)  # which here knows nobody but the seeder
    async with (
        session() as seeder,
        TorrentSession(with_settings(outside, (f"proxy={kind}://{login}127.0.0.1:{port}",))) as leecher,
    ):
        await seeder.seed(torrent, tmp_path / "seed")
        download = await leecher.add(torrent, tmp_path / "out", peers=[at(seeder)])
        assert len(await download.fetch("w.bin", 0, 8 * PIECE, stall_timeout_s=20)) == 8 * PIECE
        assert set(dialled) == {(seeder.port, login.rstrip("@"))}
        assert download.status().n_peers <= len(dialled), "nobody was dialled without it"
    await asyncio.gather(*serving)
    server.close()
    await server.wait_closed()


async def _socks5(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, dialled: list[tuple[int, str]]) -> None:
    """RFC 1928, with RFC 1929 where it is offered: CONNECT to IPv4 addresses of this machine; all else is refused."""
    _, n_methods = await reader.readexactly(2)
    if 2 in await reader.readexactly(n_methods):
        writer.write(b"\x05\x02")
        _, n_user = await reader.readexactly(2)
        user, (n_password,) = await reader.readexactly(n_user), await reader.readexactly(1)
        login = f"{user.decode()}:{(await reader.readexactly(n_password)).decode()}"
        writer.write(b"\x01\x00")
    else:
        login = ""
        writer.write(b"\x05\x00")
    _, command, _, kind = await reader.readexactly(4)
    if (command, kind) != (1, 1):
        writer.write(b"\x05\x07\x00\x01" + bytes(6))
        return
    host, port = await reader.readexactly(4), int.from_bytes(await reader.readexactly(2), "big")
    assert host == bytes((127, 0, 0, 1))
    dialled.append((port, login))
    await _join(reader, writer, port, b"\x05\x00\x00\x01" + bytes(6))


async def _http_connect(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, dialled: list[tuple[int, str]]
) -> None:
    """RFC 9110, 9.3.6: a tunnel to a port of this machine."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    method, target, *_ = head.split(" ")
    basic = re.search(r"(?i)proxy-authorization: basic (\S+)", head)
    assert method == "CONNECT"
    host, _, port = target.rpartition(":")
    assert host == "127.0.0.1"
    dialled.append((int(port), b64decode(basic[1]).decode() if basic else ""))
    await _join(reader, writer, int(port), b"HTTP/1.1 200 OK\r\n\r\n")


async def _join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int, answer: bytes) -> None:
    far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(answer)
    await asyncio.gather(_pipe(reader, far_writer), _pipe(far_reader, writer))


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()
