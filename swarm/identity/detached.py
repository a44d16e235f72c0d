"""A signature in a file of its own, beside what it signs: who signed, and 64 bytes of ed25519."""

from __future__ import annotations

import json
import re

from swarm.errors import Unauthenticated
from swarm.identity.keys import NodeKey, verify_signature
from swarm.terms import NodeId, is_node_id

SCHEMA = "swarm.signature/1"
MAX_SIGNATURE_BYTES = 1024

_SIGNATURE = re.compile(r"[0-9a-f]{128}")


def sign_detached(key: NodeKey, domain: bytes, data: bytes) -> bytes:
    """The signature file's bytes, over domain + data. domain: begins no other kind of signed bytes."""
    fields = {"schema": SCHEMA, "signature": key.sign(domain + data).hex(), "signer": key.node_id}
    return json.dumps(fields, separators=(",", ":"), sort_keys=True).encode()


def verify_detached(signature_file: bytes, domain: bytes, data: bytes) -> NodeId:
    """The id of the key that signed exactly these bytes. Does NOT say whether that key is anyone's to trust.

    Raises: Unauthenticated.
    """
    try:
        fields = json.loads(signature_file) if len(signature_file) <= MAX_SIGNATURE_BYTES else None
    except (ValueError, RecursionError):
        fields = None
    match fields:
        case {"schema": "swarm.signature/1", "signature": str(signature), "signer": str(signer), **rest} if not rest:
            if is_node_id(signer) and _SIGNATURE.fullmatch(signature):
                verify_signature(NodeId(signer), domain + data, bytes.fromhex(signature))
                return NodeId(signer)
    raise Unauthenticated(f"the signature file is malformed: it should hold one {SCHEMA} object and nothing else")
