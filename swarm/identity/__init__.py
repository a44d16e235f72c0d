"""Who a node or a publisher is: an ed25519 key, its id, its signatures, and a TLS certificate that proves the id.

Promises that a certificate which passes `node_id_of_certificate` was made by the holder of that node's key, and that
one key always gives the same certificate. Knows no sockets and no gRPC: who presented a certificate, and whether TLS
proved possession of its private key, is for swarm.rpc to establish. Does not know what a signed payload means.
"""

from swarm.identity.certificate import (
    OPEN_AUTHORITY,
    Authority,
    TlsIdentity,
    issue,
    node_id_of_certificate,
    tls_host_name,
)
from swarm.identity.detached import sign_detached, verify_detached
from swarm.identity.keyring import Keyring
from swarm.identity.keys import NodeKey, public_key_of, verify_signature

__all__ = [
    "OPEN_AUTHORITY",
    "Authority",
    "Keyring",
    "NodeKey",
    "TlsIdentity",
    "issue",
    "node_id_of_certificate",
    "public_key_of",
    "sign_detached",
    "tls_host_name",
    "verify_detached",
    "verify_signature",
]
