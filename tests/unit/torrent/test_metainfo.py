from __future__ import annotations

import os
import random
import threading
from pathlib import Path

import pytest

from swarm.errors import BadArgument, CorruptRelease
from swarm.terms import Address
from swarm.torrent import Magnet, Torrent, create_torrent

KIB = 1024


def write_folder(root: Path, order: list[str] | None = None) -> Path:
    sizes = {"shard-1.bin": 300 * KIB, "sub/shard-2.bin": 100_001, "config.json": 17, "empty": 0}
    for name in order or list(sizes):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.Random(name).randbytes(sizes[name]))
    return root


@pytest.mark.parametrize("hybrid", [False, True])
def test_the_infohash_depends_on_bytes_and_names_alone(tmp_path: Path, hybrid: bool) -> None:
    a = write_folder(tmp_path / "a" / "model")
    b = write_folder(tmp_path / "b" / "model", ["empty", "config.json", "sub/shard-2.bin", "shard-1.bin"])
    (b / "config.json").chmod(0o755)
    os.utime(b / "shard-1.bin", (1, 1))
    (b / ".cache").mkdir()
    (b / ".cache" / "x").write_bytes(b"x")
    (b / ".resume").write_bytes(b"x")
    first, second = (create_torrent(root, piece_size=64 * KIB, hybrid=hybrid) for root in (a, b))
    assert (first.v2 is not None) == hybrid
    assert first.infohash == second.infohash
    assert first.data == second.data
    (b / "config.json").write_bytes(b"y" * 17)
    assert create_torrent(b, piece_size=64 * KIB, hybrid=hybrid).infohash != first.infohash


def test_symbolic_links_are_read_through(tmp_path: Path) -> None:
    real = write_folder(tmp_path / "real" / "model")
    links = tmp_path / "links" / "model"
    for name in ("shard-1.bin", "sub/shard-2.bin", "config.json", "empty"):
        (links / name).parent.mkdir(parents=True, exist_ok=True)
        (links / name).symlink_to(real / name)
    assert create_torrent(links, piece_size=64 * KIB).infohash == create_torrent(real, piece_size=64 * KIB).infohash


@pytest.mark.parametrize("hybrid", [False, True])
def test_entries_and_pieces_agree_with_the_files(tmp_path: Path, hybrid: bool) -> None:
    root = write_folder(tmp_path / "model")
    torrent = create_torrent(
        root,
        piece_size=64 * KIB,
        trackers=["http://t.example/announce"],
        web_seeds=["http://w.example/"],
        hybrid=hybrid,
    )
    files = {entry.path: entry for entry in torrent.files if not entry.is_pad}
    assert {path: entry.size_bytes for path, entry in files.items()} == {
        "shard-1.bin": 300 * KIB,
        "sub/shard-2.bin": 100_001,
        "config.json": 17,
        "empty": 0,
    }
    assert torrent.name == "model"
    assert torrent.total_bytes == 300 * KIB + 100_018
    assert torrent.total_bytes == sum(torrent.piece_bytes(piece) for piece in range(torrent.n_pieces))
    ends = [0] + [entry.offset + entry.size_bytes for entry in torrent.files]
    assert all(entry.offset == end for entry, end in zip(torrent.files, ends, strict=False)), "entries leave no gap"
    assert any(entry.is_pad for entry in torrent.files) == hybrid
    shard = files["shard-1.bin"]
    for offset, size_bytes in ((0, shard.size_bytes), (0, 1), (64 * KIB - 1, 2), (64 * KIB, 1), (300 * KIB - 1, 1)):
        pieces = torrent.pieces_of("shard-1.bin", offset, size_bytes)
        assert pieces.start * 64 * KIB <= shard.offset + offset < (pieces.start + 1) * 64 * KIB
        assert (pieces.stop - 1) * 64 * KIB < shard.offset + offset + size_bytes <= pieces.stop * 64 * KIB
    assert len(torrent.pieces_of("empty")) == 0
    assert torrent.path_in(Path("/d"), "sub/shard-2.bin") == Path("/d/model/sub/shard-2.bin")
    assert torrent.magnet([Address("127.0.0.1", 9)]) == Magnet(
        torrent.v1,
        torrent.v2,
        "model",
        ("http://t.example/announce",),
        ("http://w.example/",),
        (Address("127.0.0.1", 9),),
    )


@pytest.mark.parametrize(
    "ask", [("nope", 0, 1), ("config.json", 0, 18), ("config.json", -1, 2), ("config.json", 18, 0)]
)
def test_bytes_outside_of_a_file_are_refused(tmp_path: Path, ask: tuple[str, int, int]) -> None:
    torrent = create_torrent(write_folder(tmp_path / "model"), piece_size=64 * KIB)
    with pytest.raises(BadArgument):
        torrent.pieces_of(*ask)


def test_a_single_file_stands_without_a_folder(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "model")
    single = create_torrent(root / "shard-1.bin", piece_size=64 * KIB)
    assert single.name == "shard-1.bin"
    assert single.path_in(Path("/d"), "shard-1.bin") == Path("/d/shard-1.bin")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "folder").write_bytes(b"a" * 100)
    nested = create_torrent(tmp_path / "folder", piece_size=64 * KIB)
    assert nested.path_in(Path("/d"), "folder") == Path("/d/folder/folder")


def test_a_torrent_survives_its_file_and_its_bare_info(tmp_path: Path) -> None:
    torrent = create_torrent(write_folder(tmp_path / "model"), piece_size=64 * KIB)
    (tmp_path / "x.torrent").write_bytes(torrent.data)
    assert Torrent.load(tmp_path / "x.torrent").files == torrent.files
    info = torrent.data[torrent.data.index(b"4:info") + 6 : -1]
    assert Torrent.from_info(info).infohash == torrent.infohash


def test_what_is_no_torrent_is_refused(tmp_path: Path) -> None:
    torrent = create_torrent(write_folder(tmp_path / "model"), piece_size=64 * KIB)
    for data in (b"", b"de", b"d4:infodee", torrent.data[:-9], b"\x00" * 99, b"i1e", b"le"):
        with pytest.raises(CorruptRelease):
            Torrent(data)
    with pytest.raises(BadArgument, match="cannot be read"):
        Torrent.load(tmp_path / "missing.torrent")


def test_any_flipped_byte_gives_a_torrent_or_corrupt_release(tmp_path: Path) -> None:
    data = create_torrent(write_folder(tmp_path / "model"), piece_size=64 * KIB, hybrid=True).data
    for position in range(0, len(data), 7):
        flipped = data[:position] + bytes((data[position] ^ 0x15,)) + data[position + 1 :]
        try:
            torrent = Torrent(flipped)
        except CorruptRelease:
            continue
        for entry in torrent.files:
            path = torrent.path_in(Path("/d"), entry.path) if not entry.is_pad else Path("/d/x")
            assert path.is_relative_to("/d")
            assert ".." not in path.parts


@pytest.mark.parametrize("piece_size", [0, 1000, 8 * KIB, 16 << 20, 65 * KIB])
def test_piece_sizes_that_go_wrong_are_refused(tmp_path: Path, piece_size: int) -> None:
    with pytest.raises(BadArgument, match="power of two"):
        create_torrent(write_folder(tmp_path / "model"), piece_size=piece_size)


def test_folders_without_data_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadArgument, match="no data"):
        create_torrent(tmp_path / "empty", piece_size=64 * KIB)
    with pytest.raises(BadArgument, match="does not exist"):
        create_torrent(tmp_path / "missing", piece_size=64 * KIB)
    os.mkfifo(tmp_path / "empty" / "pipe")
    with pytest.raises(BadArgument, match="not a regular file"):
        create_torrent(tmp_path / "empty", piece_size=64 * KIB)


def test_other_threads_run_while_hashing(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "w").write_bytes(bytes(96 << 20))
    calls: list[tuple[int, int]] = []
    turns_at_call: list[int] = []
    stop = threading.Event()
    n_turns = 0

    def count() -> None:
        nonlocal n_turns
        while not stop.wait(0.0005):
            n_turns += 1

    def progress(done: int, of: int) -> None:
        calls.append((done, of))
        turns_at_call.append(n_turns)

    other = threading.Thread(target=count)
    other.start()
    create_torrent(tmp_path / "model", piece_size=4 << 20, progress=progress)
    stop.set()
    other.join()
    assert calls == [(n, 24) for n in range(1, 25)]
    assert turns_at_call[-1] - turns_at_call[0] >= 3, "the GIL is free between pieces"
