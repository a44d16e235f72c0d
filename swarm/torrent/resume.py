"""The resume file: which pieces of a torrent are on disk, so that a restart hashes nothing twice.

Beside libtorrent's own resume data it records size and modification time of every data file. When one differs, that
file is hashed again: one that was changed by somebody else, or written to before a crash, is never trusted.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import libtorrent as lt

from swarm.terms import Infohash
from swarm.torrent.magnet import Magnet
from swarm.torrent.metainfo import Torrent
from swarm.torrent.recheck import recheck

_FORMAT = 1
_MAX_BYTES = 256 << 20


def resume_path(save_dir: Path, infohash: Infohash) -> Path:
    """Where the resume file of a torrent saved in save_dir lies: hidden, next to the torrent's root."""
    return save_dir / f".{infohash}.resume"


def starting_params(magnet: Magnet, torrent: Torrent | None, save_dir: Path) -> tuple[Any, Torrent | None]:
    """add_torrent_params that take up what lies in save_dir, and the torrent where it is known. It may hash."""
    params = read_resume(resume_path(save_dir, magnet.infohash), magnet.infohash, save_dir)
    if params is not None:
        return params, torrent or Torrent.from_info(params.ti.info_section())
    if torrent is None:
        return lt.parse_magnet_uri(str(Magnet(magnet.v1, magnet.v2, magnet.name))), None
    params = lt.load_torrent_buffer(torrent.data)
    params.piece_priorities = [0] * torrent.n_pieces
    if torrent.v1 is not None:
        params.have_pieces = recheck(torrent, save_dir)
    return params, torrent


def dropped_params(resume_data: bytes, torrent: Torrent, have: Collection[int]) -> Any:
    """add_torrent_params to go on with only the pieces in `have`."""
    params = lt.read_resume_data(resume_data)
    params.have_pieces = [piece in have for piece in range(torrent.n_pieces)]
    params.verified_pieces, params.peers, params.banned_peers = [], [], []
    params.piece_priorities = [0] * torrent.n_pieces
    return params


def stamp_files(torrent: Torrent, save_dir: Path) -> dict[bytes, list[int]]:
    """Size and modification time (ns) of every data file that exists."""
    stamps = {}
    for entry in torrent.files:
        if entry.is_pad:
            continue
        try:
            stat = torrent.path_in(save_dir, entry.path).stat()
        except OSError:
            continue
        stamps[entry.path.encode()] = [stat.st_size, stat.st_mtime_ns]
    return stamps


def write_resume(path: Path, resume_data: bytes, stamps: dict[bytes, list[int]]) -> None:
    """Replace the resume file in one step: a crash leaves the old one or the new one."""
    scratch = path.with_name(f"{path.name}.{os.urandom(4).hex()}")  # two processes may share the folder
    wrapper: Any = {b"format": _FORMAT, b"files": stamps, b"resume": resume_data}
    scratch.write_bytes(lt.bencode(wrapper))
    os.replace(scratch, path)


def read_resume(path: Path, infohash: Infohash, save_dir: Path) -> Any | None:
    """add_torrent_params to continue with, or None when there is nothing usable. Blocks while it hashes changed files.

    Peers and bans are forgotten: both would outlive their reasons.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            return None
        wrapper: Any = lt.bdecode(path.read_bytes())
        if not isinstance(wrapper, dict) or wrapper.get(b"format") != _FORMAT:
            return None
        params = lt.read_resume_data(wrapper[b"resume"])
    except (OSError, RuntimeError, KeyError, TypeError, ValueError):
        return None  # a damaged resume file costs a recheck, nothing more
    hashes = params.ti.info_hashes() if params.ti is not None else params.info_hashes
    if infohash not in (str(hashes.v1), str(hashes.v2)[:40]):
        return None
    params.banned_peers = []
    params.peers = []
    params.file_priorities = []
    if params.ti is None:
        return None
    torrent = Torrent.from_info(params.ti.info_section())
    params.piece_priorities = [0] * torrent.n_pieces
    old, now = wrapper.get(b"files"), stamp_files(torrent, save_dir)
    if old != now:
        claimed = {piece for piece, has in enumerate(params.have_pieces) if has}
        for entry in torrent.files:
            key = entry.path.encode()
            if not entry.is_pad and (not isinstance(old, dict) or old.get(key) != now.get(key)):
                claimed.difference_update(torrent.pieces_of(entry.path))
        # An empty list makes libtorrent hash everything itself, the only way where there are no v1 hashes.
        params.have_pieces = recheck(torrent, save_dir, claimed) if torrent.v1 is not None else []
        params.verified_pieces = []
        params.unfinished_pieces = {}
    return params
