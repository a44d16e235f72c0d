"""What to throw away so that a node keeps no more than it was allowed: decided from numbers alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from swarm.errors import BadArgument


def choose_evictions(
    have: Collection[int],
    hosted: Collection[int],
    bytes_in: Callable[[Collection[int]], int],
    availability: Sequence[int],
    disk_bytes: int,
) -> list[int]:
    """The pieces to give up so that what is kept and what is still to come fit disk_bytes.

    have: pieces on disk. hosted: pieces of the hosted layers, which are never given up. availability: by piece, how
    many others have it; those that most others have go first, so that the swarm loses the least.
    Raises: BadArgument when the hosted layers alone are too large.
    """
    kept = set(have) | set(hosted)
    excess = bytes_in(kept) - disk_bytes
    if (hosted_bytes := bytes_in(hosted)) > disk_bytes:
        raise BadArgument(
            f"the hosted layers take {hosted_bytes} bytes on disk and --disk allows {disk_bytes}; host fewer "
            "layers, or allow at least that"
        )
    evicted: list[int] = []
    for piece in sorted(kept - set(hosted), key=lambda p: (-availability[p], p)):
        if excess <= 0:
            break
        excess -= bytes_in((piece,))
        evicted.append(piece)
    return evicted
