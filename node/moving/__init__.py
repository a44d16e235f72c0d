"""Keeps a node where the swarm needs it: claims layers, waits for who claimed them before, and later moves.

Promises that nothing is fetched for a claim that an older one stands against, that a move loads before it leaves, and
that a layer is left only while another node serves it and does not leave it too. What is needed is node.placement's to
say; this room asks it by the clock and does as it says. Knows discovery, the stage and the torrent; no gRPC.
"""

from __future__ import annotations

from node.moving.claims import Claims
from node.moving.machine import claims_for, measure
from node.moving.mover import Mover, OnLoaded
from node.moving.part_claims import PartClaims
from node.moving.settling import unserved

__all__ = ["Claims", "Mover", "OnLoaded", "PartClaims", "claims_for", "measure", "unserved"]
