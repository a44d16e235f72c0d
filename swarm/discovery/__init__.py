"""Finds the nodes of a release, and lets a node be found: signed facts that expire, passed from node to node.

Promises that every fact in the table carries its issuer's valid signature, is the newest seen of that issuer, and has
not expired. Knows where to look (a rendezvous such as the DHT, static peers, nodes already known) only through the two
small protocols in ports.py: it does NOT know gRPC, BitTorrent, routes or models.
"""

from swarm.discovery.discovery import Discovery, DiscoveryConfig
from swarm.discovery.lan import LanRendezvous
from swarm.discovery.ports import FactsPort, Rendezvous
from swarm.discovery.rtts import RttBook
from swarm.discovery.signing import check_fact, rendezvous_key, sign_fact
from swarm.discovery.table import FactTable

__all__ = [
    "Discovery",
    "DiscoveryConfig",
    "FactTable",
    "FactsPort",
    "LanRendezvous",
    "Rendezvous",
    "RttBook",
    "check_fact",
    "rendezvous_key",
    "sign_fact",
]
