"""A node's ed25519 key: made, kept on disk, signed with; and what others can check knowing only the node id."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from swarm.errors import BadArgument, Unauthenticated
from swarm.terms import NodeId, is_node_id, short_id

_MAX_KEY_FILE_BYTES = 64 * 1024


class NodeKey:
    """A node's private key. It leaves this object only through `to_pem` and `secret`; repr shows the id alone."""

    __slots__ = ("_private_key", "node_id")

    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        self._private_key = private_key
        self.node_id = node_id_of_public_key(private_key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> NodeKey:
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, pem: bytes) -> NodeKey:
        """Read an unencrypted PKCS#8 ed25519 key. Raises: BadArgument."""
        try:
            private_key = load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise BadArgument(f"not an unencrypted private key in PEM: {error}") from None
        if not isinstance(private_key, Ed25519PrivateKey):
            raise BadArgument("a node's key is an ed25519 key, and this one is of another kind")
        return cls(private_key)

    @classmethod
    def load_or_create(cls, path: Path) -> NodeKey:
        """The key in `path`, made on first use (mode 0600, missing folders 0700); callers that race get the same one.

        A file that others may read is refused: whoever reads it can be this node.
        Raises: BadArgument when the file is no key, is too open, or can't be read or written.
        """
        try:
            with contextlib.suppress(FileNotFoundError):
                return cls._load(path)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_once(path, cls.generate().to_pem())
            return cls._load(path)
        except OSError as error:
            raise BadArgument(
                f"the node key {path} can't be used: {error.strerror}; mend the path or its rights"
            ) from None

    @classmethod
    def _load(cls, path: Path) -> NodeKey:
        with path.open("rb") as file:
            if os.name == "posix" and os.fstat(file.fileno()).st_mode & 0o077:
                raise BadArgument(f"the node key {path} may be read by others; run: chmod 600 {path}")
            pem = file.read(_MAX_KEY_FILE_BYTES)
        try:
            return cls.from_pem(pem)
        except BadArgument as error:
            raise BadArgument(f"{path} holds no node key ({error.message}); move it away to get a new id") from None

    def sign(self, payload: bytes) -> bytes:
        """64 bytes of ed25519 over `payload`, which its caller starts with a domain that no other use starts with."""
        return self._private_key.sign(payload)

    def to_pem(self) -> bytes:
        return self._private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def secret(self) -> bytes:
        """The 32-byte seed, for keys derived from this one."""
        return self._private_key.private_bytes_raw()

    def __repr__(self) -> str:
        return f"NodeKey({short_id(self.node_id)})"


def node_id_of_public_key(public_key: bytes) -> NodeId:
    """public_key: 32 raw bytes of ed25519."""
    return NodeId(base64.b32encode(public_key).decode("ascii").rstrip("=").lower())


def public_key_of(node_id: str) -> bytes:
    """The 32 bytes that `node_id` spells; only the one canonical spelling is taken.

    Raises: Unauthenticated, since such an id can prove nothing.
    """
    if is_node_id(node_id):
        with contextlib.suppress(binascii.Error):
            public_key = base64.b32decode(node_id.upper() + "====")
            if node_id_of_public_key(public_key) == node_id:
                return public_key
    raise Unauthenticated(f"{node_id[:60]!r} is not a node id: nothing that it signs can be checked")


def verify_signature(node_id: NodeId, payload: bytes, signature: bytes) -> None:
    """Return only if `node_id`'s key signed exactly `payload`. Raises: Unauthenticated."""
    public_key = Ed25519PublicKey.from_public_bytes(public_key_of(node_id))
    try:
        public_key.verify(signature, payload)
    except InvalidSignature:
        raise Unauthenticated(
            f"the signature is not by node {short_id(node_id)}, or was made for other bytes"
        ) from None


def _write_once(path: Path, data: bytes) -> None:
    """Put a complete 0600 file at `path` unless one is there already; a crash leaves either none or all of it."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)  # unlike rename, never replaces the key that another process has just made
    finally:
        os.unlink(temporary)
