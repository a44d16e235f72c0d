"""What to throw away so that a torrent takes no more of the disk than it may: decided from numbers alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from swarm.errors import BadArgument

SizeOf = Callable[[Collection[int]], int]
"""Pieces -> their bytes on disk."""


def check_room(hosted: Collection[int], bytes_in: SizeOf, disk_bytes: int) -> None:
    """Return if what is hosted fits disk_bytes (0: everything fits). Raises: BadArgument."""
    hosted_bytes = bytes_in(hosted)
    if disk_bytes and hosted_bytes > disk_bytes:
        raise BadArgument(
            f"the hosted layers take {hosted_bytes} bytes on disk and --disk allows {disk_bytes} (the least that any "
            "node in this data folder was given counts, and what all of them host); host fewer layers, allow at least "
            "that, or take another --data-dir"
        )


def choose_evictions(
    have: Collection[int],
    hosted: Collection[int],
    bytes_in: SizeOf,
    availability: Sequence[int],
    disk_bytes: int,
) -> list[int]:
    """The pieces to give up so that what is kept and what is still to come fit disk_bytes.

    have: pieces on disk. hosted: pieces of the hosted layers, which are never given up. availability: by piece, how
    many others have it; those that most others have go first, so that the swarm loses the least.
    Raises: BadArgument when the hosted layers alone are too large.
    """
    check_room(hosted, bytes_in, disk_bytes)
    kept = set(have) | set(hosted)
    excess = bytes_in(kept) - disk_bytes
    evicted: list[int] = []
    for piece in sorted(kept - set(hosted), key=lambda p: (-availability[p], p)):
        if excess <= 0:
            break
        excess -= bytes_in((piece,))
        evicted.append(piece)
    return evicted


def tightest(limits: Iterable[int]) -> int:
    """The least of these limits, where 0 stands for none."""
    return min((limit for limit in limits if limit), default=0)
