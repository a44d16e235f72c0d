"""Read a piece from a BEP 19 web seed over plain HTTP: the way out where libtorrent's own web seeds stand still.

Each read starts at the seed's own address and follows its redirects anew, so no signed address is ever too old. A
piece that lies in two files is read from both: once redirected, libtorrent knows no server that has all of it.
What an address outside of this network redirects to inside of it is not asked: a link must not make us its errand boy.
"""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import ipaddress
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from swarm.errors import TransferError
from swarm.torrent.metainfo import Torrent
from swarm.torrent.recheck import slices_of
from swarm.torrent.transfer import Transfer
from swarm.torrent.web_seeds import WebSeedRenewal

_TIMEOUT_S = 20.0
_PIECE_TIMEOUT_S = 60.0
_CHUNK_BYTES = 256 << 10
_N_PIECES = 4


class WebSeedBusy(TransferError):
    """The server answered with an error. status: HTTP's number. retry_after_s: what it asked for, 0.0 for nothing."""

    def __init__(self, message: str, status: int, retry_after_s: float) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


async def read_missing(transfer: Transfer, allows: Callable[[str], bool]) -> None:
    """Read a few of the wanted pieces that do not come, those wanted most first, and have libtorrent verify them.

    Does nothing while another call reads for this torrent: slow servers must not pile up threads.
    """
    torrent, renewal = transfer.torrent, transfer.renewal
    if torrent is None or renewal is None or renewal.is_reading:
        return
    renewal.is_reading = True
    try:
        await _read_missing(transfer, torrent, renewal, allows)
    finally:
        renewal.is_reading = False


async def _read_missing(
    transfer: Transfer, torrent: Torrent, renewal: WebSeedRenewal, allows: Callable[[str], bool]
) -> None:
    missing = [piece for piece in transfer.wanted if piece not in transfer.have]
    missing.sort(key=lambda piece: (-transfer.wanted[piece], piece))
    for url in renewal.urls:
        try:
            for piece in missing[:_N_PIECES]:
                data = await asyncio.to_thread(read_web_piece, torrent, url, piece, allows)
                expected = torrent.piece_hash(piece)
                if expected is not None and hashlib.sha1(data, usedforsecurity=False).digest() != expected:
                    renewal.banned(url)
                    raise TransferError("banned: it sent data that fails its hash")
                if piece not in transfer.have and transfer.failure is None:
                    transfer.handle.add_piece(piece, data, 0)
            return
        except WebSeedBusy as error:
            renewal.failed(error.status, time.monotonic(), error.retry_after_s)
            transfer.attempts.web_seed(url, error.message)
        except TransferError as error:
            transfer.attempts.web_seed(url, error.message)


def read_web_piece(torrent: Torrent, url: str, piece: int, allows: Callable[[str], bool]) -> bytes:
    """The bytes of a piece, pads included. allows: whether an address, redirected to or not, may be asked. Blocks, for
    _PIECE_TIMEOUT_S at most and what one silence takes.

    Raises: WebSeedBusy, TransferError.
    """
    opener, deadline_s = _opener(allows), time.monotonic() + _PIECE_TIMEOUT_S
    parts = []
    for entry, offset, size_bytes in slices_of(torrent, piece):
        if entry.is_pad:
            parts.append(bytes(size_bytes))
        else:
            parts.append(_read(opener, _address(torrent, url, entry.path), offset, size_bytes, deadline_s))
    return b"".join(parts)


def _address(torrent: Torrent, url: str, file: str) -> str:
    if torrent.is_single_file:
        return url + quote(torrent.name) if url.endswith("/") else url
    return f"{url.rstrip('/')}/{quote(torrent.name)}/{quote(file)}"


def _opener(allows: Callable[[str], bool]) -> urllib.request.OpenerDirector:
    """HTTP and HTTPS alone: no files, no FTP, and no proxy that the environment names."""
    fence = _Fence()
    opener = urllib.request.OpenerDirector()
    for handler in (
        _Http(fence),
        _Https(fence),
        _Redirects(allows),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _read(
    opener: urllib.request.OpenerDirector, address: str, offset: int, size_bytes: int, deadline_s: float
) -> bytes:
    request = urllib.request.Request(address, headers={"Range": f"bytes={offset}-{offset + size_bytes - 1}"})
    try:
        with opener.open(request, timeout=_TIMEOUT_S) as reply:
            if reply.status != 206:
                raise TransferError(f"{address} does not serve ranges of bytes; it is no use as a web seed")
            data = bytearray()
            while len(data) <= size_bytes and (chunk := reply.read1(min(_CHUNK_BYTES, size_bytes + 1 - len(data)))):
                data += chunk
                if time.monotonic() > deadline_s:
                    raise TransferError(f"{address} is too slow: no whole piece came in {_PIECE_TIMEOUT_S:g} s")
    except urllib.error.HTTPError as error:
        error.close()  # it holds the connection
        after = error.headers.get("Retry-After", "")
        retry_after_s = float(after) if after.isdecimal() else 0.0
        raise WebSeedBusy(f"{address} answered {error.code} {error.reason}", error.code, retry_after_s) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise TransferError(f"{address} cannot be read: {error}") from error
    if len(data) != size_bytes:
        raise TransferError(f"{address} sent {len(data)} bytes where {size_bytes} were asked for")
    return bytes(data)


class _Fence:
    """Whether the first server that was reached is on the internet; then no private address may be asked after it.

    Decided by the address that a connection really leads to, so that no name can stand for another one.
    """

    def __init__(self) -> None:
        self._is_outside = False

    def check(self, host: str) -> None:
        """host: a numeric address. Raises: OSError."""
        is_global = ipaddress.ip_address(host.partition("%")[0]).is_global
        if self._is_outside and not is_global:
            raise OSError(f"it redirects to {host}, which lies inside of this network")
        self._is_outside = self._is_outside or is_global


class _Http(urllib.request.HTTPHandler):
    def __init__(self, fence: _Fence) -> None:
        super().__init__()
        self._fence = fence

    def http_open(self, req: Any) -> Any:
        return self.do_open(_fenced(http.client.HTTPConnection, self._fence), req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, fence: _Fence) -> None:
        super().__init__()
        self._fence = fence

    def https_open(self, req: Any) -> Any:
        return self.do_open(_fenced(http.client.HTTPSConnection, self._fence), req)


def _fenced(kind: type[http.client.HTTPConnection], fence: _Fence) -> Any:
    """Connections of this kind that send no request to where the fence does not let them."""

    class Fenced(kind):  # type: ignore[valid-type,misc]
        def connect(self) -> None:
            super().connect()
            try:
                fence.check(self.sock.getpeername()[0])
            except OSError:
                self.close()
                raise

    return Fenced


class _Redirects(urllib.request.HTTPRedirectHandler):
    def __init__(self, allows: Callable[[str], bool]) -> None:
        self._allows = allows

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not self._allows(newurl):
            raise OSError(f"it redirects to {newurl}, which this session may not ask")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
