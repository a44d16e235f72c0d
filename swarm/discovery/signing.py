"""Facts are signed by the key that their node id is, so anybody may pass them on."""

from __future__ import annotations

import hashlib

from swarm.facts import NodeFact, SignedFact
from swarm.identity import NodeKey, verify_signature
from swarm.terms import Infohash
from swarm.wire import FACT_DOMAIN, decode_fact, encode_fact


def sign_fact(key: NodeKey, fact: NodeFact) -> SignedFact:
    payload = encode_fact(fact)
    return SignedFact(fact, payload, key.sign(FACT_DOMAIN + payload))


def check_fact(signed: SignedFact) -> NodeFact:
    """The fact that the payload holds, if its issuer signed it. Raises: Unauthenticated, RemoteProtocolError."""
    fact = decode_fact(signed.payload)
    verify_signature(fact.node_id, FACT_DOMAIN + signed.payload, signed.signature)
    return fact


def rendezvous_key(release: Infohash) -> bytes:
    """The 20-byte DHT key under which a release's nodes announce their gRPC ports.

    Not the infohash itself: under that one the DHT lists BitTorrent peers.
    """
    return hashlib.sha1(b"swarm-nodes-v1\0" + bytes.fromhex(release), usedforsecurity=False).digest()
