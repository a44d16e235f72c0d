"""manifest.json: what a publisher says a release is: every file's SHA-256, every tensor's place, licence, base model.

It travels in the release's own folder, beside manifest.sig, which swarm.identity makes and checks. Does NOT know keys,
and believes nothing: a manifest counts only once its signature was verified over these very bytes.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from swarm.errors import CorruptRelease, LocalProtocolError
from swarm.release.args import MAX_TENSORS, STORED_DTYPES
from swarm.release.canonical_json import MAX_INTEGER, canonical_bytes
from swarm.release.layout import ReleaseLayout
from swarm.release.names import all_shapes, check_name
from swarm.release.outside import REFETCH, parse_json_object, show
from swarm.release.ranges import TensorRange

MANIFEST_FILE = "manifest.json"
SIGNATURE_FILE = "manifest.sig"
MANIFEST_DOMAIN = b"swarm release manifest v1\n"
"""What a manifest's signature is made over: these bytes, then manifest.json's."""

MAX_MANIFEST_BYTES = 12 << 20  # 40,000 tensors of 280 bytes, and files
MAX_FILES = 10_000
SCHEMA = "swarm.manifest/1"

_KEYS = {"schema", "name", "version", "licence", "base_model", "format", "files", "tensors"}
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class FileDigest:
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """name: the release folder's. version, licence, base_model: "" where the publisher states none.

    files: path -> digest of every file but the manifest and its signature. tensors: canonical name -> place and
    SHA-256, since a node that hosts some layers has whole tensors, and no whole file to hold a digest against.
    """

    name: str
    version: str
    licence: str
    base_model: str
    format: str
    files: Mapping[str, FileDigest]
    tensors: Mapping[str, TensorRange]

    def to_bytes(self) -> bytes:
        """Canonical JSON: the same manifest gives the same bytes on any machine."""
        tensors = {
            name: {
                "dtype": t.dtype,
                "shape": list(t.shape),
                "file": t.file,
                "offset": t.offset,
                "transposed": t.is_transposed,
                "sha256": t.sha256,
            }
            for name, t in self.tensors.items()
        }
        files = {path: {"size": d.size_bytes, "sha256": d.sha256} for path, d in self.files.items()}
        texts = {
            "name": self.name,
            "version": self.version,
            "licence": self.licence,
            "base_model": self.base_model,
            "format": self.format,
        }
        return canonical_bytes({"schema": SCHEMA, **texts, "files": files, "tensors": tensors})

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        """Raises: CorruptRelease for anything but the canonical bytes of a manifest within the bounds above."""
        if len(data) > MAX_MANIFEST_BYTES:
            raise _wrong(f"has {len(data)} bytes, and {MAX_MANIFEST_BYTES} is the most")
        if data.count(b"{") > MAX_TENSORS + MAX_FILES + 8:
            raise _wrong("lists more files and tensors than any release has")
        value = parse_json_object(data, MANIFEST_FILE, 16 * MAX_TENSORS)
        if value.get("schema") != SCHEMA or value.keys() != _KEYS:
            raise _wrong(f"is of another kind than {SCHEMA}")
        texts = {key: value[key] for key in ("name", "version", "licence", "base_model", "format")}
        if not all(isinstance(text, str) and len(text) <= 255 and _is_plain(text) for text in texts.values()):
            raise _wrong("has a name, version or licence that is not a short line of text")
        files, tensors = value["files"], value["tensors"]
        if not isinstance(files, dict) or not isinstance(tensors, dict) or len(files) > MAX_FILES:
            raise _wrong("does not list files and tensors")
        manifest = cls(
            **texts,
            files={_check_path(path): _parse_digest(path, entry) for path, entry in files.items()},
            tensors={check_name(name, MANIFEST_FILE): _parse_tensor(name, entry) for name, entry in tensors.items()},
        )
        del value, files, tensors  # a manifest of 40,000 tensors is not held three times over
        try:
            is_canonical = manifest.to_bytes() == data
        except LocalProtocolError:
            is_canonical = False
        if not is_canonical:
            raise _wrong("is not in its canonical spelling, so others may read it differently")
        return manifest

    def check_files(self, sizes: Mapping[str, int], where: str) -> None:
        """The release has exactly these files, in these sizes. sizes: path -> bytes. Raises: CorruptRelease."""
        for path, digest in self.files.items():
            if sizes.get(path) != digest.size_bytes:
                raise _wrong(
                    f"says {show(path)} has {digest.size_bytes} bytes, and {where} has {sizes.get(path, 'none')}"
                )
        extra = next((p for p in sizes if p not in self.files and p not in (MANIFEST_FILE, SIGNATURE_FILE)), None)
        if extra is not None:
            raise _wrong(f"does not list {show(extra)}, which {where} has")

    def check_layout(self, layout: ReleaseLayout) -> None:
        """What was read from the files' own heads is what the publisher signed: names, shapes, dtypes and places.

        layout: of the whole model or of some layers. Raises: CorruptRelease naming the first tensor that differs.
        """
        shapes = all_shapes(layout.args)
        if self.format != layout.format or self.tensors.keys() != shapes.keys():
            raise _wrong("describes another model than the release's config")
        for name, shape in shapes.items():
            if self.tensors[name].shape != shape:
                raise _wrong(f"gives {name} the shape {self.tensors[name].shape}, and the config {shape}")
        for name, tensor in layout.tensors.items():
            if self.tensors[name] != tensor:
                raise _wrong(f"gives {name} another dtype or place than {tensor.file} does")

    def bind(self, layout: ReleaseLayout) -> ReleaseLayout:
        """The layout with what was signed of its tensors' bytes. It must have passed check_layout."""
        return dataclasses.replace(layout, tensors={name: self.tensors[name] for name in layout.tensors})


def manifest_of(
    layout: ReleaseLayout,
    name: str,
    files: Mapping[str, FileDigest],
    tensors: Mapping[str, str],
    *,
    version: str = "",
    base_model: str = "",
) -> Manifest:
    """layout: of the whole model. files: without manifest.json and manifest.sig. tensors: name -> SHA-256."""
    signed = {name: dataclasses.replace(tensor, sha256=tensors[name]) for name, tensor in layout.tensors.items()}
    return Manifest(name, version, layout.licence or "", base_model, layout.format, files, signed)


def _wrong(what: str) -> CorruptRelease:
    return CorruptRelease(f"{MANIFEST_FILE} {what}; the release is not what was signed: {REFETCH}")


def _is_plain(text: str) -> bool:
    return text == "" or (text.isprintable() and text.strip() == text)


def _check_path(path: str) -> str:
    """A path below the release's folder, in one spelling. Raises: CorruptRelease."""
    parts = path.split("/")
    if not _is_plain(path) or len(path) > 1024 or "\\" in path or any(part in ("", ".", "..") for part in parts):
        raise _wrong(f"names the file {show(path)}")
    return path


def _parse_digest(path: str, entry: Any) -> FileDigest:
    match entry:
        case {"size": int(size), "sha256": str(sha256), **rest} if not rest and _SHA256.fullmatch(sha256):
            if not isinstance(size, bool) and 0 <= size <= MAX_INTEGER:
                return FileDigest(size, sha256)
    raise _wrong(f"has no size and SHA-256 for {show(path)}")


def _parse_tensor(name: str, entry: Any) -> TensorRange:
    match entry:
        case {
            "dtype": str(dtype),
            "shape": list(shape),
            "file": str(file),
            "offset": int(offset),
            "transposed": bool(turned),
            "sha256": str(sha256),
            **rest,
        } if not rest and dtype in STORED_DTYPES and len(shape) <= 8 and _SHA256.fullmatch(sha256):
            if all(type(n) is int and 0 <= n < 1 << 48 for n in (offset, *shape)):
                return TensorRange(_check_path(file), offset, dtype, tuple(shape), turned, sha256)
    raise _wrong(f"has no dtype, shape, place and SHA-256 for {show(name)}")
