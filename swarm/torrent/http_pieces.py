"""Read a piece from a BEP 19 web seed over plain HTTP: the way out where libtorrent's own web seeds stand still.

Each read starts at the seed's own address and follows its redirects anew, so no signed address is ever too old. A
piece that lies in two files is read from both: once redirected, libtorrent knows no server that has all of it.
Verifies nothing: libtorrent hashes what it is given.
"""

from __future__ import annotations

import asyncio
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

_TIMEOUT_S = 20.0
_N_PIECES = 4


class WebSeedBusy(TransferError):
    """The server answered with an error. status: HTTP's number. retry_after_s: what it asked for, 0.0 for nothing."""

    def __init__(self, message: str, status: int, retry_after_s: float) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


async def read_missing(transfer: Transfer, allows: Callable[[str], bool]) -> None:
    """Read a few of the wanted pieces that do not come, those wanted most first, and have libtorrent verify them."""
    torrent, renewal = transfer.torrent, transfer.renewal
    if torrent is None or renewal is None:
        return
    missing = [piece for piece in transfer.wanted if piece not in transfer.have]
    missing.sort(key=lambda piece: (-transfer.wanted[piece], piece))
    for url in renewal.urls:
        try:
            for piece in missing[:_N_PIECES]:
                data = await asyncio.to_thread(read_web_piece, torrent, url, piece, allows)
                if piece not in transfer.have and transfer.failure is None:
                    transfer.handle.add_piece(piece, data, 0)
            return
        except WebSeedBusy as error:
            renewal.failed(error.status, time.monotonic(), error.retry_after_s)
            transfer.attempts.web_seed(url, error.message)
        except TransferError as error:
            transfer.attempts.web_seed(url, error.message)


def read_web_piece(torrent: Torrent, url: str, piece: int, allows: Callable[[str], bool]) -> bytes:
    """The bytes of a piece, pads included. allows: whether an address, redirected to or not, may be asked. Blocks.

    Raises: WebSeedBusy, TransferError.
    """
    opener = urllib.request.build_opener(_Redirects(allows))
    parts = []
    for entry, offset, size_bytes in slices_of(torrent, piece):
        if entry.is_pad:
            parts.append(bytes(size_bytes))
        else:
            parts.append(_read(opener, _address(torrent, url, entry.path), offset, size_bytes))
    return b"".join(parts)


def _address(torrent: Torrent, url: str, file: str) -> str:
    if torrent.is_single_file:
        return url + quote(torrent.name) if url.endswith("/") else url
    return f"{url.rstrip('/')}/{quote(torrent.name)}/{quote(file)}"


def _read(opener: urllib.request.OpenerDirector, address: str, offset: int, size_bytes: int) -> bytes:
    request = urllib.request.Request(address, headers={"Range": f"bytes={offset}-{offset + size_bytes - 1}"})
    try:
        with opener.open(request, timeout=_TIMEOUT_S) as reply:
            if reply.status != 206:
                raise TransferError(f"{address} does not serve ranges of bytes; it is no use as a web seed")
            data: bytes = reply.read(size_bytes + 1)
    except urllib.error.HTTPError as error:
        after = error.headers.get("Retry-After", "")
        retry_after_s = float(after) if after.isdecimal() else 0.0
        raise WebSeedBusy(f"{address} answered {error.code} {error.reason}", error.code, retry_after_s) from error
    except (OSError, ValueError) as error:
        raise TransferError(f"{address} cannot be read: {error}") from error
    if len(data) != size_bytes:
        raise TransferError(f"{address} sent {len(data)} bytes where {size_bytes} were asked for")
    return data


class _Redirects(urllib.request.HTTPRedirectHandler):
    def __init__(self, allows: Callable[[str], bool]) -> None:
        self._allows = allows

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not self._allows(newurl):
            raise OSError(f"it redirects to {newurl}, which this session may not ask")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
