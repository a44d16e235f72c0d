from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from swarm.torrent import Torrent, create_torrent
from swarm.torrent.recheck import recheck

PIECE = 64 * 1024


@pytest.fixture(params=["v1", "hybrid"])
def torrent(tmp_path: Path, request: pytest.FixtureRequest) -> Torrent:
    """Three files, of which one has four pieces of zeros in its middle."""
    zeros = bytearray(random.Random(1).randbytes(8 * PIECE))
    zeros[2 * PIECE : 7 * PIECE] = bytes(5 * PIECE)
    (tmp_path / "seed" / "model").mkdir(parents=True)
    (tmp_path / "seed" / "model" / "a.bin").write_bytes(random.Random(2).randbytes(5 * PIECE + 11))
    (tmp_path / "seed" / "model" / "b.bin").write_bytes(zeros)
    (tmp_path / "seed" / "model" / "c.json").write_bytes(b"{}")
    return create_torrent(tmp_path / "seed" / "model", piece_size=PIECE, hybrid=request.param == "hybrid")


def test_a_complete_folder_has_every_piece(tmp_path: Path, torrent: Torrent) -> None:
    assert all(recheck(torrent, tmp_path / "seed"))


def test_an_absent_folder_has_none(tmp_path: Path, torrent: Torrent) -> None:
    assert not any(recheck(torrent, tmp_path / "nowhere"))


def test_a_flipped_byte_costs_one_piece(tmp_path: Path, torrent: Torrent) -> None:
    with (tmp_path / "seed" / "model" / "a.bin").open("r+b") as file:
        file.seek(3 * PIECE)
        byte = file.read(1)
        file.seek(3 * PIECE)
        file.write(bytes((byte[0] ^ 1,)))
    (bad,) = torrent.pieces_of("a.bin", 3 * PIECE, 1)
    assert [piece for piece, has in enumerate(recheck(torrent, tmp_path / "seed")) if not has] == [bad]
    assert all(recheck(torrent, tmp_path / "seed", trusted=[bad])), "a trusted piece is not read"


def test_a_truncated_file_loses_its_tail(tmp_path: Path, torrent: Torrent) -> None:
    os.truncate(tmp_path / "seed" / "model" / "b.bin", 4 * PIECE)
    missing = {piece for piece, has in enumerate(recheck(torrent, tmp_path / "seed")) if not has}
    assert missing == set(torrent.pieces_of("b.bin", 4 * PIECE, 4 * PIECE)), "zeros beyond the end are not there"


def test_holes_are_skipped_unless_the_piece_is_zeros(
    tmp_path: Path, torrent: Torrent, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy" / "model"
    copy.mkdir(parents=True)
    shutil.copy(tmp_path / "seed" / "model" / "c.json", copy)
    (copy / "a.bin").touch()
    os.truncate(copy / "a.bin", 5 * PIECE + 11)
    data = (tmp_path / "seed" / "model" / "b.bin").read_bytes()
    with (copy / "b.bin").open("wb") as file:
        file.write(data[: 2 * PIECE])
        file.truncate(8 * PIECE)
    n_read = 0
    pread = os.pread

    def counting(descriptor: int, size_bytes: int, offset: int) -> bytes:
        nonlocal n_read
        n_read += size_bytes
        return pread(descriptor, size_bytes, offset)

    monkeypatch.setattr(os, "pread", counting)
    have = {piece for piece, has in enumerate(recheck(torrent, tmp_path / "copy")) if has}
    whole = {p for p in torrent.pieces_of("b.bin", 0, 7 * PIECE) if p not in torrent.pieces_of("a.bin")}
    boundary = set(torrent.pieces_of("b.bin", 7 * PIECE - 1, PIECE))
    assert whole - boundary <= have <= whole | set(torrent.pieces_of("c.json"))
    assert n_read <= 4 * PIECE, "holes are not read"
