"""Layouts of .pth releases, against torch.save; and pickles and archives that torch.save would not write."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest

from swarm.errors import CorruptRelease, ReleaseError, UnsupportedArchitecture
from swarm.release import list_folder, read_folder_layout, read_layout
from swarm.release.closed_pickle import read_tensor_dict
from swarm.terms import Span

PTH = "consolidated.00.pth"


def check_bytes(folder: Path, tensors: dict[str, Any]) -> None:
    import torch

    data = (folder / PTH).read_bytes()
    layout = read_folder_layout(folder)
    assert layout.format == "mistral-pth"
    assert layout.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        found = layout.tensors[name]
        assert data[found.offset :][: found.size_bytes] == tensor.contiguous().view(torch.uint8).numpy().tobytes()
        assert found.shape == tuple(tensor.shape)


def test_every_tensor_is_where_torch_wrote_it(pth_folder: Path, tiny_tensors: dict[str, Any]) -> None:
    check_bytes(pth_folder, tiny_tensors)
    layout = read_folder_layout(pth_folder)
    assert layout.tokenizer_file == "tokenizer.model"
    assert all(tensor.offset % 64 == 0 for tensor in layout.tensors.values())


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_other_dtypes(pth_folder: Path, tiny_tensors: dict[str, Any], dtype: str) -> None:
    import torch

    cast = {name: tensor.to(getattr(torch, dtype)) for name, tensor in tiny_tensors.items()}
    torch.save(cast, pth_folder / PTH)
    check_bytes(pth_folder, cast)
    assert read_folder_layout(pth_folder).args.stored_dtype == {"float32": "fp32", "float16": "fp16"}[dtype]


def test_a_state_dict_with_metadata(pth_folder: Path, tiny_tensors: dict[str, Any]) -> None:
    import torch

    state: Any = OrderedDict(tiny_tensors)
    state._metadata = OrderedDict({"": {"version": 1}})
    torch.save(state, pth_folder / PTH)
    check_bytes(pth_folder, tiny_tensors)


def test_views_of_one_storage(pth_folder: Path, tiny_tensors: dict[str, Any]) -> None:
    import torch

    names = [f"layers.0.feed_forward.experts.{i}.w1.weight" for i in range(4)]
    fused = torch.cat([tiny_tensors[name] for name in names])
    for i, name in enumerate(names):
        tiny_tensors[name] = fused[i * 24 : (i + 1) * 24]
    torch.save(tiny_tensors, pth_folder / PTH)
    check_bytes(pth_folder, tiny_tensors)


def test_a_transposed_tensor_is_refused(pth_folder: Path, tiny_tensors: dict[str, Any]) -> None:
    import torch

    name = "layers.0.attention.wo.weight"
    tiny_tensors[name] = tiny_tensors[name].t().contiguous().t()
    torch.save(tiny_tensors, pth_folder / PTH)
    with pytest.raises(UnsupportedArchitecture, match="transposed"):
        read_folder_layout(pth_folder)


def test_a_span_reads_local_headers_of_its_tensors_only(pth_folder: Path) -> None:
    layout = read_folder_layout(pth_folder, [Span(1, 2)])
    assert layout.tensors.keys() == layout.layer_tensors(1).keys()
    assert len(layout.head_ranges) < 30
    assert len(read_folder_layout(pth_folder).head_ranges) > 60


@pytest.mark.parametrize("change", ["lacks", "unknown", "fused", "nested"])
def test_other_tensors_than_the_config_says(pth_folder: Path, tiny_tensors: dict[str, Any], change: str) -> None:
    import torch

    error: type[ReleaseError] = UnsupportedArchitecture
    if change == "lacks":
        del tiny_tensors["layers.1.attention.wq.weight"]
        error = CorruptRelease
    elif change == "unknown":
        tiny_tensors["layers.1.attention.wq.bias"] = torch.zeros(2)
    elif change == "fused":
        tiny_tensors["layers.1.block_sparse_moe.w1"] = torch.zeros(2)
    else:
        tiny_tensors = {"model": tiny_tensors}
        error = CorruptRelease
    torch.save(tiny_tensors, pth_folder / PTH)
    with pytest.raises(error):
        read_folder_layout(pth_folder)


def rezip(source: Path, target: Path, method: int = zipfile.ZIP_STORED, drop: str = "\0", **replaced: bytes) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", method) as new:
        for info in old.infolist():
            if drop not in info.filename:
                data = replaced.get(info.filename.rsplit("/", 1)[-1].split(".")[0], old.read(info))
                new.writestr(info.filename, data)


def test_a_plain_zip_of_the_same_entries_is_read(
    pth_folder: Path, tiny_tensors: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (pth_folder / PTH).rename(pth_folder / "torch.zip")
    rezip(pth_folder / "torch.zip", pth_folder / PTH)
    check_bytes(pth_folder, tiny_tensors)
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)  # now with zip64's records for nearly every field
    rezip(pth_folder / "torch.zip", pth_folder / PTH)
    assert b"PK\x06\x06" in (pth_folder / PTH).read_bytes()
    check_bytes(pth_folder, tiny_tensors)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"method": zipfile.ZIP_DEFLATED}, "compressed"),
        ({"drop": "data.pkl"}, "data.pkl"),
        ({"drop": "data/7"}, "storage"),
        ({"byteorder": b"big"}, "big-endian"),
        ({"data": b"cposix\nsystem\nX\x02\x00\x00\x00id\x85R."}, "protocol|imports|opcode"),
        ({"data": b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00id\x85R."}, "posix.system"),
    ],
)
def test_archives_that_torch_would_not_write(pth_folder: Path, change: dict[str, Any], word: str) -> None:
    (pth_folder / PTH).rename(pth_folder / "torch.zip")
    rezip(pth_folder / "torch.zip", pth_folder / PTH, **change)
    with pytest.raises(ReleaseError, match=word):
        read_folder_layout(pth_folder)


def test_a_zip_in_a_zips_comment_or_after_junk(pth_folder: Path) -> None:
    data = (pth_folder / PTH).read_bytes()
    for wrong in (b"junk" + data, data + b"junk", data[:-1], data[:100], b"", data[:-22] + data[-22:] * 2):
        (pth_folder / PTH).write_bytes(wrong)
        with pytest.raises(CorruptRelease):
            read_folder_layout(pth_folder)


def test_a_local_header_that_contradicts_the_directory(pth_folder: Path) -> None:
    data = bytearray((pth_folder / PTH).read_bytes())
    at = data.find(b"data/3")
    data[at : at + 6] = b"data/4"
    (pth_folder / PTH).write_bytes(data)
    with pytest.raises(CorruptRelease, match="local header"):
        read_folder_layout(pth_folder)


def test_entries_that_share_bytes(pth_folder: Path) -> None:
    """Point the directory's data/2 at data/1 and name its local header so: one range for two tensors."""
    data = bytearray((pth_folder / PTH).read_bytes())
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        infos = {info.filename.rsplit("/", 1)[-1]: info for info in archive.infolist() if "/data/" in info.filename}
    first, second = next(
        (a, b)
        for a in infos.values()
        for b in infos.values()
        if a.header_offset < b.header_offset and a.file_size == b.file_size and len(a.filename) == len(b.filename)
    )
    directory_name = data.rfind(second.filename.encode())
    data[directory_name - 4 : directory_name] = struct.pack("<I", first.header_offset)
    (pth_folder / PTH).write_bytes(data)
    with pytest.raises(CorruptRelease, match=r"local header|overlap"):
        read_folder_layout(pth_folder)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit('ran')",)

    def __repr__(self) -> str:
        """Names the test: the same in each worker that collects it, as an address is not."""
        return "Evil()"


@pytest.mark.parametrize(
    "value",
    [{"a": Evil()}, Evil(), {"a": 1}, [1], {1: 2}, {"a": {1}}, {"a": b"bytes"}, {"a": int}, {"a": OrderedDict(b=[1])}],
    ids=str,
)
def test_pickles_run_nothing(value: Any) -> None:
    refused = 0
    for protocol in range(6):
        try:
            found = read_tensor_dict(pickle.dumps(value, protocol), PTH)
        except CorruptRelease:
            refused += 1
        else:
            assert found == {}
            assert protocol == 2
    assert refused >= 5


def test_pickles_that_declare_gigabytes() -> None:
    tracemalloc.start()
    try:
        assert read_tensor_dict(b"\x80\x02}r\xff\xff\xff\x7f.", PTH) == {}  # a memo index of 2**31
        for bomb in (
            b"\x80\x02X\xff\xff\xff\xff.",  # a text of 4 GiB
            b"\x80\x02\x8e" + b"\xff" * 8 + b".",  # BINBYTES8
            b"\x80\x02\x8b\xff\xff\xff\x7f.",  # LONG4
            b"\x80\x02]" + b"(" * 200_000,
        ):
            with pytest.raises(CorruptRelease):
                read_tensor_dict(bomb, PTH)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def test_reading_takes_few_rounds(pth_folder: Path) -> None:
    reading = read_layout(list_folder(pth_folder), [Span(0, 1)])
    wanted = next(reading)
    rounds = [wanted]
    try:
        while True:
            answers = []
            for r in wanted:
                with open(pth_folder / r.file, "rb") as file:
                    file.seek(r.offset)
                    answers.append(file.read(r.size_bytes))
            wanted = reading.send(answers)
            rounds.append(wanted)
    except StopIteration:
        pass
    assert [len(r) for r in rounds][:2] == [1, 1]  # params.json; the tail with the whole directory
    assert len(rounds) == 5  # then local headers, the pickle, the tensors' local headers
    assert json.loads((pth_folder / "params.json").read_text())["dim"] == 16
