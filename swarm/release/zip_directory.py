"""A zip archive's central directory, read from the archive's tail: which entry lies where. Nothing is unpacked.

Stricter than zip readers at large, since torch writes one exact kind: every entry stored as it is, nothing before the
first entry, nothing between the directory and the archive's end. Source: PKWARE's APPNOTE 6.3, sections 4.3 and 4.5.3.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from swarm.errors import CorruptRelease
from swarm.release.outside import REFETCH, show

_END = struct.Struct("<4s4H2IH")
_END64_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")

LOCAL_HEADER_BYTES = _LOCAL.size
MAX_TAIL_BYTES = _END64.size + _END64_LOCATOR.size + _END.size + 65535  # with the longest comment
MAX_DIRECTORY_BYTES = 8 << 20
MAX_ENTRIES = 40_016


@dataclass(frozen=True, slots=True)
class ZipEntry:
    """A stored entry. header_offset: of its local header; where its data starts only that header says."""

    name: str
    header_offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class DirectoryPlace:
    offset: int
    size_bytes: int
    n_entries: int


def find_directory(tail: bytes, file: str, file_bytes: int) -> DirectoryPlace:
    """Where the central directory is. tail: the file's last min(file_bytes, MAX_TAIL_BYTES) bytes.

    Raises: CorruptRelease.
    """
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + _END.size > len(tail):
        raise CorruptRelease(f"{file} does not end as a zip archive, which a .pth file is; {REFETCH}")
    _, disk, start_disk, _, n_entries, size, offset, n_comment = _END.unpack_from(tail, at)
    end = file_bytes - len(tail) + at  # of the directory, unless zip64's records follow it
    if at + _END.size + n_comment != len(tail) or disk or start_disk:
        raise CorruptRelease(f"{file}: the end of its zip directory is malformed; {REFETCH}")
    if at >= _END64_LOCATOR.size and tail[at - _END64_LOCATOR.size :][:4] == b"PK\x06\x07":
        _, _, end64_offset, _ = _END64_LOCATOR.unpack_from(tail, at - _END64_LOCATOR.size)
        at64 = at - _END64_LOCATOR.size - _END64.size
        if at64 < 0 or tail[at64 : at64 + 4] != b"PK\x06\x06" or end64_offset != file_bytes - len(tail) + at64:
            raise CorruptRelease(f"{file}: the zip64 end of its directory is malformed; {REFETCH}")
        *_, n_entries, size, offset = _END64.unpack_from(tail, at64)
        end = end64_offset
    if offset + size != end:
        raise CorruptRelease(
            f"{file}: its zip directory is said to be at {offset}+{size}, but ends at {end}; {REFETCH}"
        )
    if size > MAX_DIRECTORY_BYTES or n_entries > MAX_ENTRIES or n_entries * _CENTRAL.size > size:
        raise CorruptRelease(
            f"{file}: a zip directory of {n_entries} entries in {size} bytes is not credible; {REFETCH}"
        )
    return DirectoryPlace(offset, size, n_entries)


def parse_directory(directory: bytes, place: DirectoryPlace, file: str) -> dict[str, ZipEntry]:
    """The entries by name. Raises: CorruptRelease for compressed, encrypted, repeated or impossible entries."""
    entries: dict[str, ZipEntry] = {}
    at = 0
    for _ in range(place.n_entries):
        if at + _CENTRAL.size > len(directory):
            raise CorruptRelease(f"{file}: its zip directory ends early; {REFETCH}")
        fields = _CENTRAL.unpack_from(directory, at)
        signature, flags, method = fields[0], fields[3], fields[4]
        n_name, n_extra, n_comment, disk = fields[10:14]
        name_end = at + _CENTRAL.size + n_name
        next_at = name_end + n_extra + n_comment
        if signature != b"PK\x01\x02" or next_at > len(directory) or disk not in (0, 0xFFFF):
            raise CorruptRelease(f"{file}: its zip directory is malformed at byte {at}; {REFETCH}")
        name = _entry_name(directory[at + _CENTRAL.size : name_end], file)
        if method != 0 or flags & 0x41:
            raise CorruptRelease(f"{file}: {name} is compressed or encrypted, which torch.save never does; {REFETCH}")
        wide = _wide_fields(directory[name_end : name_end + n_extra], file)
        size, stored, offset = (
            next(wide, -1) if narrow == 0xFFFFFFFF else narrow for narrow in (fields[9], fields[8], fields[16])
        )
        if name in entries or size != stored or not 0 <= offset <= place.offset - size - _LOCAL.size - n_name:
            raise CorruptRelease(f"{file}: {name} appears twice or lies outside the archive; {REFETCH}")
        entries[name] = ZipEntry(name, offset, size)
        at = next_at
    if at != len(directory):
        raise CorruptRelease(f"{file}: its zip directory has {len(directory) - at} bytes too many; {REFETCH}")
    return entries


def data_offset(local_header: bytes, entry: ZipEntry, file: str, directory_offset: int) -> int:
    """Where the entry's data starts in the file.

    local_header: LOCAL_HEADER_BYTES + len(entry.name) bytes from entry.header_offset. The local header's own lengths
    count: torch pads its extra field so that data is aligned, and the central directory does not say by how much.
    Raises: CorruptRelease when it names another entry or the data runs into the directory.
    """
    signature, _, flags, method, _, _, _, _, _, n_name, n_extra = _LOCAL.unpack_from(local_header)
    name = local_header[LOCAL_HEADER_BYTES:]
    if signature != b"PK\x03\x04" or method != 0 or flags & 0x41 or n_name != len(name) or name != entry.name.encode():
        raise CorruptRelease(f"{file}: the local header of {entry.name} contradicts the directory; {REFETCH}")
    start = entry.header_offset + LOCAL_HEADER_BYTES + n_name + n_extra
    if start + entry.size_bytes > directory_offset:
        raise CorruptRelease(f"{file}: {entry.name} runs into the zip directory; {REFETCH}")
    return start


def _entry_name(raw: bytes, file: str) -> str:
    if not 1 <= len(raw) <= 512 or not all(0x20 < byte < 0x7F for byte in raw):
        raise CorruptRelease(f"{file}: a zip entry is named {show(raw)}; {REFETCH}")
    return raw.decode("ascii")


def _wide_fields(extra: bytes, file: str) -> Iterator[int]:
    """The 8-byte values of zip64's extra field, in order: size, stored size, offset, each only where needed."""
    at = 0
    while at + 4 <= len(extra):
        kind, n_bytes = struct.unpack_from("<2H", extra, at)
        if at + 4 + n_bytes > len(extra):
            raise CorruptRelease(f"{file}: a zip entry's extra field runs over its end; {REFETCH}")
        if kind == 1:
            return iter(struct.unpack_from(f"<{n_bytes // 8}Q", extra, at + 4))
        at += 4 + n_bytes
    return iter(())
