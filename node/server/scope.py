"""Whose cached pages a session may begin with, and leave to others: those of one client, computed by one route."""

from __future__ import annotations

from hashlib import blake2b

from swarm.messages import Open


def prefix_scope(opening: Open) -> bytes:
    """Equal for two sessions only if a page of one may stand in for the other's.

    It binds the client, whom the first hop knows by its certificate, and every hop before this one, whose last is the
    caller: no other can read or fill these pages, and what reached them was computed by the very same nodes and layers.
    And the profile, which all of them promised then: a node may come back with another.
    """
    upstream = [f"{hop.node_id} {hop.span}" for hop in opening.hops[: opening.hop_idx]]
    own_span = str(opening.hops[opening.hop_idx].span)
    bound = "\n".join((opening.client_id, str(opening.profile), *upstream, own_span))
    return blake2b(bound.encode(), digest_size=32, person=b"swarm.kv.scope").digest()
