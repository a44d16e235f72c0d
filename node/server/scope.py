"""Whose cached pages a session may begin with, and leave to others: those of one client, computed by one route."""

from __future__ import annotations

from hashlib import blake2b

from swarm.messages import Open


def prefix_scope(opening: Open) -> bytes:
    """Equal for two sessions only if a page of one may stand in for the other's.

    It binds the client, whom the first hop knows by its certificate, and every hop before this one, whose last is the
    caller: no other can read or fill these pages, and what reached them was computed by the very same nodes and layers.
    """
    upstream = [f"{hop.node_id} {hop.span}" for hop in opening.hops[: opening.hop_idx]]
    bound = "\n".join((opening.client_id, *upstream, str(opening.hops[opening.hop_idx].span)))
    return blake2b(bound.encode(), digest_size=32, person=b"swarm.kv.scope").digest()
