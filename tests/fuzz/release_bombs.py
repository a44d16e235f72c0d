"""Bytes that unfold to more than they are, and how much memory one of them takes: run as a program by the tests.

Prints [bytes that this process grew by at most, the name of the error that was raised or ""].
"""

from __future__ import annotations

import functools
import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path

from swarm.errors import SwarmError
from swarm.release import Manifest
from swarm.release.canonical_json import canonical_bytes
from swarm.release.closed_pickle import read_tensor_dict
from swarm.release.heads import parse_header

MIB = 1 << 20


def empty_tensors(n: int) -> bytes:
    entries = ",".join(f'"t{i}":{{"dtype":"BF16","shape":[0],"data_offsets":[0,0]}}' for i in range(n))
    return ("{" + entries + "}").encode()


def manifest_of(n_tensors: int) -> bytes:
    tensors = {
        f"layers.{i}.w": {
            "dtype": "bf16", "shape": [1, 1], "file": "f", "offset": i, "transposed": False, "sha256": f"{i:064x}"
        }
        for i in range(n_tensors)
    }  # fmt: skip
    texts = {"name": "m", "version": "", "licence": "", "base_model": "", "format": "hf", "schema": "swarm.manifest/1"}
    return canonical_bytes({**texts, "files": {}, "tensors": tensors})


def header(data: bytes) -> Callable[[], object]:
    return lambda: parse_header(data, "w.safetensors", 8 + len(data))


def pickled(body: bytes) -> Callable[[], object]:
    return lambda: read_tensor_dict(b"\x80\x02" + body + b".", "w.pth")


BOMBS: dict[str, Callable[[], Callable[[], object]]] = {
    "tensors without end": lambda: header(empty_tensors(139_000)[: 8 * MIB - 1] + b"}"),
    "text of four bytes a letter": lambda: header(
        b'{"__metadata__":{"a":"' + "😀".encode() * (2 * MIB - 16) + b'"},"x":1}'
    ),
    "lists in lists": lambda: header(b'{"a":' + b"[" * (8 * MIB - 6) + b"}"),
    "lists beside lists": lambda: header(b'{"a":[' + b"[]," * (2 * MIB) + b"0]}"),
    "a number of a million digits": lambda: header(b'{"a":{"shape":[' + b"9" * (8 * MIB - 64) + b"]}}"),
    "a manifest of tensors": lambda: functools.partial(Manifest.parse, manifest_of(100_000)),
    "a pickle of dicts": lambda: pickled(b"}" * (4 * MIB - 8)),
    "a pickle of tuples": lambda: pickled(b")" + b"\x85" * (4 * MIB - 8)),
    "a pickle of memos": lambda: pickled(b"}" + b"".join(b"r" + struct.pack("<I", i) for i in range(800_000))),
    "a pickle of text": lambda: pickled(b"X" + struct.pack("<I", 4 * MIB - 64) + "😀".encode() * (MIB - 16)),
    "a pickle of marks": lambda: pickled(b"(" * (4 * MIB - 8)),
    "a pickle of long numbers": lambda: pickled((b"\x8a\xff" + b"\x7f" * 255) * 16_000),
    "as many tensors as are allowed": lambda: header(empty_tensors(39_000)),
    "as many signed tensors as are allowed": lambda: functools.partial(Manifest.parse, manifest_of(39_000)),
}


def memory_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(field))


def main(bomb: str) -> None:
    action = BOMBS[bomb]()
    Path("/proc/self/clear_refs").write_text("5")  # from here on VmHWM is the highest that follows
    before, raised = memory_bytes("VmRSS:"), ""
    try:
        action()
    except SwarmError as error:
        raised = type(error).__name__
    print(json.dumps([memory_bytes("VmHWM:") - before, raised]))


if __name__ == "__main__":
    main(sys.argv[1])
