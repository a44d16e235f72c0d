"""Reads what a release is out of its torrent: the small files and, for a host, the heads of its weight files."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence

from swarm.client.admission import Admission, Provenance, admit, paper_names
from swarm.client.values import ClientRelease
from swarm.errors import BadArgument
from swarm.release import ReleaseLayout, companion_files, read_layout
from swarm.terms import ExpertId, Span
from swarm.tokenizer import Tokenizer, load_tokenizer
from swarm.torrent import Download, Magnet, Torrent

SMALL_FILES_PRIORITY = 7
"""The highest that BitTorrent has: everything else waits for what they say."""


HASHED_AT_ONCE_BYTES = 4 << 20


async def fetch_metadata(download: Download, magnet: Magnet, timeout_s: float) -> Torrent:
    """The torrent that magnet names, if that is the name its swarm goes by.

    Raises: MetadataTimeout; BadArgument for a hybrid release named by its v2 hash alone: others meet under v1's.
    """
    torrent = await download.metadata(timeout_s)
    if torrent.infohash != magnet.infohash:
        raise BadArgument(
            f"this magnet names a hybrid release by its v2 hash alone; its nodes meet under {torrent.infohash}: "
            f"use {torrent.magnet(peers=magnet.peers)}"
        )
    return torrent


async def read_remote_layout(
    download: Download,
    torrent: Torrent,
    spans: Sequence[Span] | None,
    *,
    experts: Sequence[ExpertId] = (),
    trunks: Sequence[Span] = (),
    stall_timeout_s: float = 60.0,
) -> ReleaseLayout:
    """Fetch, verified, only what tells the layout of spans: () for the config alone, None for the whole model.

    experts: single ones beside the spans; trunks: layers without their experts.

    stall_timeout_s: how long not one byte may come.
    Raises: ReleaseError, TransferError.
    """
    files = torrent.sizes
    # All small files at once: whoever wants nothing for a moment may be choked, and wait ten seconds for a turn.
    await download.want(
        {piece: SMALL_FILES_PRIORITY for name in companion_files(files) for piece in torrent.pieces_of(name)}
    )
    reading = read_layout(files, spans, experts, trunks)
    try:
        wanted = next(reading)
        while True:
            fetches = (
                download.fetch(part.file, part.offset, part.size_bytes, stall_timeout_s=stall_timeout_s)
                for part in wanted
            )
            wanted = reading.send(list(await asyncio.gather(*fetches)))
    except StopIteration as done:
        layout: ReleaseLayout = done.value
        return layout


async def read_admitted_layout(
    download: Download,
    torrent: Torrent,
    spans: Sequence[Span] | None,
    admission: Admission,
    *,
    experts: Sequence[ExpertId] = (),
    trunks: Sequence[Span] = (),
    stall_timeout_s: float = 60.0,
) -> tuple[ReleaseLayout, Provenance]:
    """read_remote_layout, then what its publisher signed held against it: before any weight is fetched or loaded.

    The weights' own bytes are not here yet: the layout says what was signed of them, and loading checks it.

    Raises: CorruptRelease for a release that is not what was signed, or not by whom was asked for; LicenceNotAccepted;
    ReleaseError, TransferError.
    """
    layout = await read_remote_layout(
        download, torrent, spans, experts=experts, trunks=trunks, stall_timeout_s=stall_timeout_s
    )
    sizes = torrent.sizes
    papers: dict[str, bytes] = {}
    digests: dict[str, str] = {}
    for name in paper_names(sizes):
        papers[name] = await download.fetch(name, 0, sizes[name], stall_timeout_s=stall_timeout_s)
    for name in layout.companions if papers else ():
        digest = hashlib.sha256()
        for offset in range(0, sizes[name], HASHED_AT_ONCE_BYTES):
            size_bytes = min(HASHED_AT_ONCE_BYTES, sizes[name] - offset)
            digest.update(await download.fetch(name, offset, size_bytes, stall_timeout_s=stall_timeout_s))
        digests[name] = digest.hexdigest()
    provenance = await asyncio.to_thread(admit, layout, sizes, torrent.infohash, papers, admission, digests)
    return layout if provenance.manifest is None else provenance.manifest.bind(layout), provenance


async def fetch_file(download: Download, torrent: Torrent, path: str) -> None:
    """Have one whole file of the torrent on disk, verified."""
    size_bytes = next(entry.size_bytes for entry in torrent.files if entry.path == path)
    await download.fetch(path, 0, size_bytes)


async def fetch_client_release(download: Download, torrent: Torrent, admission: Admission) -> ClientRelease:
    """Fetch the config and the tokenizer, and nothing of the weights; where they are signed, check that they are those.

    Raises: ReleaseError, TransferError.
    """
    layout, _ = await read_admitted_layout(download, torrent, (), admission)
    tokenizer: Tokenizer | None = None
    if layout.tokenizer_file is not None:
        await fetch_file(download, torrent, layout.tokenizer_file)
        tokenizer = await asyncio.to_thread(load_tokenizer, download.file_path(layout.tokenizer_file))
    return ClientRelease(torrent.name, torrent.infohash, layout.args, tokenizer)
