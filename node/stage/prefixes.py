"""Which pages a session offers to begin with, and whose they are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Prefix:
    """scope: opaque; pages are found by sessions of the same scope only. page_hashes: of the first pages."""

    scope: bytes
    page_hashes: tuple[bytes, ...] = ()
