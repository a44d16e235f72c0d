"""A safetensors file's head: the table of tensors at its start. Values are never read."""

from __future__ import annotations

from typing import Any, TypeGuard

from swarm.errors import CorruptRelease, UnsupportedArchitecture
from swarm.release.args import MAX_TENSORS, STORED_DTYPES
from swarm.release.names import check_name
from swarm.release.outside import REFETCH, parse_json_object, show
from swarm.release.ranges import TensorRange

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000
"""The format's own limit. Source: safetensors' MAX_HEADER_SIZE."""

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

    header: exactly the JSON after the length. The ranges lie within the file, fit their shapes and do not overlap.
    Raises: CorruptRelease; UnsupportedArchitecture for a dtype that is not BF16, F16 or F32.
    """
    entries = parse_json_object(header, f"the header of {file}", MAX_TENSORS * _VALUES_PER_TENSOR)
    entries.pop("__metadata__", None)
    if len(entries) > MAX_TENSORS:
        raise CorruptRelease(f"{file} declares {len(entries)} tensors, and {MAX_TENSORS} is the most; {REFETCH}")
    data_start = LENGTH_BYTES + len(header)
    tensors = {
        check_name(name, file): _parse_entry(entry, f"{file}: {show(name)}", file, data_start, file_bytes)
        for name, entry in entries.items()
    }
    refuse_overlaps(tensors)
    return tensors


def refuse_overlaps(tensors: dict[str, TensorRange]) -> None:
    """Two tensors of one file share no byte. Raises: CorruptRelease naming both."""
    ordered = sorted(tensors.items(), key=lambda item: (item[1].file, item[1].offset))
    last_name, last = "", None
    for name, tensor in ordered:
        if not tensor.size_bytes:
            continue
        if last is not None and last.file == tensor.file and tensor.offset < last.offset + last.size_bytes:
            raise CorruptRelease(f"{tensor.file}: the bytes of {last_name} and {name} overlap; {REFETCH}")
        last_name, last = name, tensor


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
