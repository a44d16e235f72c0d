"""Names of KV pages: what a session's cache holds, page by page, told without telling the tokens. Pure; no IO."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import blake2b

PAGE = 256
"""Positions in one KV page."""

PAGE_HASH_BYTES = 16

MAX_PAGES_OFFERED = 1 << 14
"""Hashes in one Open: four million tokens, and a quarter of what one message may hold."""

_NO_PAGE = bytes(PAGE_HASH_BYTES)


def page_hashes(ids: Sequence[int], secret: bytes = b"", known: Sequence[bytes] = ()) -> tuple[bytes, ...]:
    """One hash per full page of ids, each chained to the one before it, so that it names the whole prefix.

    secret: up to 64 bytes. Who does not have it cannot check a guess at the ids against a hash.
    known: the hashes of the first pages, where they were computed before.
    """
    chain = list(known)
    for start in range(len(chain) * PAGE, len(ids) - PAGE + 1, PAGE):
        page = struct.pack(f"<{PAGE}I", *ids[start : start + PAGE])
        before = chain[-1] if chain else _NO_PAGE
        chain.append(blake2b(before + page, digest_size=PAGE_HASH_BYTES, key=secret, person=b"swarm.kv.page").digest())
    return tuple(chain)


def n_pages_completed(position: int, n_rows: int) -> int:
    """How many pages become full when n_rows follow upon position cached ones."""
    return (position + n_rows) // PAGE - position // PAGE
