"""A .pth file's tensors as byte ranges: zip directory, then the pickle, then one local header per tensor wanted."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator

from swarm.errors import CorruptRelease, UnsupportedArchitecture
from swarm.release.args import MAX_TENSORS, STORED_DTYPES
from swarm.release.closed_pickle import MAX_PICKLE_BYTES, PickledTensor, read_tensor_dict
from swarm.release.names import check_name
from swarm.release.outside import REFETCH
from swarm.release.ranges import ByteRange, TensorRange
from swarm.release.zip_directory import (
    LOCAL_HEADER_BYTES,
    MAX_TAIL_BYTES,
    ZipEntry,
    data_offset,
    find_directory,
    parse_directory,
)

Reading = Generator[list[ByteRange], list[bytes], dict[str, TensorRange]]


def read_pth(
    file: str, file_bytes: int, is_wanted: Callable[[str], bool], check_names: Callable[[str], None]
) -> Reading:
    """Yields the ranges it wants, is sent their bytes, returns the wanted tensors of one .pth file.

    is_wanted(name): whose places to find: each costs a read next to the tensor's own bytes. check_names(name) is called
    for every tensor of the file and raises for one that must not be there.
    Raises: CorruptRelease, UnsupportedArchitecture.
    """
    n_tail = min(file_bytes, MAX_TAIL_BYTES)
    (tail,) = yield [ByteRange(file, file_bytes - n_tail, n_tail)]
    place = find_directory(tail, file, file_bytes)
    tail_start = file_bytes - n_tail
    if place.offset >= tail_start:
        directory = tail[place.offset - tail_start :][: place.size_bytes]
    else:
        (directory,) = yield [ByteRange(file, place.offset, place.size_bytes)]
    entries = parse_directory(directory, place, file)
    root, pickle_entry = _find_pickle(entries, file)
    pickled = yield from _read_pickle(pickle_entry, entries.get(f"{root}byteorder"), file, place.offset)
    found = read_tensor_dict(pickled, file)
    if len(found) > MAX_TENSORS:
        raise CorruptRelease(f"{file} declares {len(found)} tensors, and {MAX_TENSORS} is the most; {REFETCH}")
    wanted = {}
    for name, tensor in found.items():
        check_names(check_name(name, file))
        entry = _check_view(name, tensor, entries.get(f"{root}data/{tensor.storage.key}"), file)
        if is_wanted(name):
            wanted[name] = (tensor, entry)
    storages = {entry.name: entry for _, entry in wanted.values()}
    starts = yield from _read_data_offsets(list(storages.values()), file, place.offset)
    start_of = dict(zip(storages, starts, strict=True))
    _refuse_shared_bytes([(start_of[name], entry.size_bytes) for name, entry in storages.items()], file)
    return {name: _locate(tensor, file, start_of[entry.name]) for name, (tensor, entry) in wanted.items()}


def _find_pickle(entries: dict[str, ZipEntry], file: str) -> tuple[str, ZipEntry]:
    """The archive's root folder (with its '/') and its data.pkl."""
    pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise CorruptRelease(
            f"{file} holds {len(pickles)} entries named data.pkl where torch.save writes one; {REFETCH}"
        )
    root = pickles[0].removesuffix("data.pkl")
    if entries[pickles[0]].size_bytes > MAX_PICKLE_BYTES:
        raise CorruptRelease(f"{file}: {pickles[0]} is larger than {MAX_PICKLE_BYTES} bytes; {REFETCH}")
    return root, entries[pickles[0]]


def _read_pickle(
    pickle_entry: ZipEntry, byteorder: ZipEntry | None, file: str, directory_offset: int
) -> Generator[list[ByteRange], list[bytes], bytes]:
    """data.pkl's bytes, once the archive's byte order, where it states one, is known to be ours."""
    entries = [pickle_entry] if byteorder is None else [pickle_entry, byteorder]
    starts = yield from _read_data_offsets(entries, file, directory_offset)
    sizes = [pickle_entry.size_bytes, 6]
    pickled, *order = yield [
        ByteRange(file, start, min(entry.size_bytes, size))
        for start, entry, size in zip(starts, entries, sizes, strict=False)
    ]
    if order not in ([], [b"little"]):
        raise UnsupportedArchitecture(f"{file} was saved on a big-endian machine; save it again on another")
    return pickled


def _read_data_offsets(
    entries: list[ZipEntry], file: str, directory_offset: int
) -> Generator[list[ByteRange], list[bytes], list[int]]:
    if not entries:
        return []
    headers = yield [ByteRange(file, e.header_offset, LOCAL_HEADER_BYTES + len(e.name)) for e in entries]
    return [data_offset(header, entry, file, directory_offset) for header, entry in zip(headers, entries, strict=True)]


def _check_view(name: str, tensor: PickledTensor, entry: ZipEntry | None, file: str) -> ZipEntry:
    """The tensor is a contiguous view that lies within a storage that lies within its entry."""
    storage = tensor.storage
    if entry is None or entry.size_bytes != storage.n_values * STORED_DTYPES[storage.dtype]:
        raise CorruptRelease(f"{file}: the storage of {name} is missing or of another size than declared; {REFETCH}")
    if tensor.offset + math.prod(tensor.shape) > storage.n_values or len(tensor.shape) != len(tensor.stride):
        raise CorruptRelease(f"{file}: {name} of shape {tensor.shape} runs over the end of its storage; {REFETCH}")
    contiguous = 1
    for n, stride in zip(reversed(tensor.shape), reversed(tensor.stride), strict=True):
        if n > 1 and stride != contiguous:
            raise UnsupportedArchitecture(f"{file}: {name} is stored transposed; save it again with .contiguous()")
        contiguous *= n
    return entry


def _locate(tensor: PickledTensor, file: str, start: int) -> TensorRange:
    dtype = tensor.storage.dtype
    return TensorRange(file, start + tensor.offset * STORED_DTYPES[dtype], dtype, tensor.shape)


def _refuse_shared_bytes(ranges: list[tuple[int, int]], file: str) -> None:
    """Entries of one archive share no byte. Tensors may share one entry: tied weights do."""
    end = 0
    for start, size in sorted(ranges):
        if start < end:
            raise CorruptRelease(f"{file}: two of its zip entries overlap; {REFETCH}")
        end = start + size
