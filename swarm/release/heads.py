"""A safetensors file's head: the table of tensors at its start. Values are never read."""

from __future__ import annotations

from typing import Any, TypeGuard

from swarm.errors import CorruptRelease, UnsupportedArchitecture
from swarm.release.args import MAX_TENSORS, STORED_DTYPES
from swarm.release.names import check_name
from swarm.release.outside import REFETCH, parse_json_object, show
from swarm.release.ranges import TensorRange

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 8 << 20
"""40,000 tensors of 200 bytes. The format allows 100 MB, which unfold to gigabytes; 8x22B in one file has 230 kB."""

_DTYPES = {"BF16": "bf16", "F16": "fp16", "F32": "fp32"}
_VALUES_PER_TENSOR = 16  # commas and brackets of one entry: 9, and some room for metadata


def header_size(first_bytes: bytes, file: str, file_bytes: int) -> int:
    """The header's length, declared in the first 8 bytes of a file of file_bytes. Raises: CorruptRelease."""
    size = int.from_bytes(first_bytes[:LENGTH_BYTES], "little")
    if len(first_bytes) < LENGTH_BYTES or not 2 <= size <= file_bytes - LENGTH_BYTES:
        raise CorruptRelease(f"{file} ({file_bytes} bytes) declares a header of {size} bytes; {REFETCH}")
    if size > MAX_HEADER_BYTES:
        raise CorruptRelease(f"{file} declares a header of {size} bytes, and {MAX_HEADER_BYTES} is the most; {REFETCH}")
    return size


def parse_header(header: bytes, file: str, file_bytes: int) -> dict[str, TensorRange]:
    """The tensors of one safetensors file, under the names that it stores.

    header: exactly the JSON after the length. The ranges fit their shapes and fill the file, as the format demands.
    Raises: CorruptRelease; UnsupportedArchitecture for a dtype that is not BF16, F16 or F32.
    """
    n_objects = header.count(b"{")  # before the costly parse: one for each tensor
    if n_objects > MAX_TENSORS + 64:
        raise CorruptRelease(f"{file} declares about {n_objects} tensors, and {MAX_TENSORS} is the most; {REFETCH}")
    entries = parse_json_object(header, f"the header of {file}", MAX_TENSORS * _VALUES_PER_TENSOR)
    entries.pop("__metadata__", None)
    data_start = LENGTH_BYTES + len(header)
    tensors = {
        check_name(name, file): _parse_entry(entry, f"{file}: {show(name)}", file, data_start, file_bytes)
        for name, entry in entries.items()
    }
    _refuse_gaps_and_overlaps(tensors, file, data_start, file_bytes)
    return tensors


def _refuse_gaps_and_overlaps(tensors: dict[str, TensorRange], file: str, data_start: int, file_bytes: int) -> None:
    """The tensors fill the file from the header to its end. Raises: CorruptRelease naming where they do not."""
    at, last_name = data_start, "the header"
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].offset, item[1].size_bytes)):
        if tensor.offset != at:
            fault = "overlap" if tensor.offset < at else "leave a gap"
            raise CorruptRelease(f"{file}: the bytes of {last_name} and {name} {fault}; {REFETCH}")
        at, last_name = at + tensor.size_bytes, name
    if at != file_bytes:
        raise CorruptRelease(f"{file} has {file_bytes} bytes, but its tensors end at byte {at}; {REFETCH}")


def _parse_entry(entry: Any, what: str, file: str, data_start: int, file_bytes: int) -> TensorRange:
    if not isinstance(entry, dict):
        raise CorruptRelease(f"{what} is {show(entry)}, not a tensor's entry; {REFETCH}")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise UnsupportedArchitecture(
            f"{what} is stored as {show(dtype)}; weights are read as BF16, F16 or F32 (quantised files are not)"
        )
    if not _are_counts(shape, 0, 8) or not _are_counts(offsets, 2, 2):
        raise CorruptRelease(f"{what} has shape {show(shape)} at offsets {show(offsets)}; {REFETCH}")
    begin, end = offsets
    tensor = TensorRange(file, data_start + begin, _DTYPES[dtype], tuple(shape))
    if not begin <= end <= file_bytes - data_start or tensor.size_bytes != end - begin:
        raise CorruptRelease(
            f"{what} of shape {tensor.shape} needs {tensor.size_bytes} bytes ({STORED_DTYPES[tensor.dtype]} each), but "
            f"its offsets are {begin}..{end} of {file_bytes - data_start}; {REFETCH}"
        )
    return tensor


def _are_counts(values: Any, fewest: int, most: int) -> TypeGuard[list[int]]:
    return (
        isinstance(values, list)
        and fewest <= len(values) <= most
        and all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 1 << 48 for v in values)
    )
