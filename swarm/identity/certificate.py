"""TLS certificates that prove a node id: a P-256 leaf whose key the node's ed25519 key has signed.

gRPC's TLS takes no ed25519 certificates, and a server that asks for client certificates must name an authority for
them. So every node issues its own leaf under an authority whose private key all members know. That authority proves
membership (of everybody, in an open swarm) and never identity: identity is the extension, checked on every call, and a
client must pin the very leaf that it has checked.
"""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from swarm.errors import Unauthenticated
from swarm.identity.keys import NodeKey, node_id_of_public_key, public_key_of, verify_signature
from swarm.terms import NodeId

# Source: the libp2p TLS 1.0 specification. The extension's DER is SEQUENCE { OCTET STRING public key, OCTET STRING
# signature }; the key is a libp2p protobuf {Type: Ed25519, Data: 32 bytes}; the signature is over domain + leaf's SPKI.
_EXTENSION_OID = x509.ObjectIdentifier("1.3.6.1.4.1.53594.1.1")
_SIGNATURE_DOMAIN = b"libp2p-tls-handshake:"
_BEFORE_PUBLIC_KEY = bytes.fromhex("3068042408011220")
_BEFORE_SIGNATURE = bytes.fromhex("0440")

# Order of P-256. Source: FIPS 186-4, D.1.2.3.
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

# Fixed, so that a certificate is the same each time, and independent of clocks, which volunteers' machines set wrongly.
_NOT_BEFORE = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
_NOT_AFTER = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)


@dataclass(frozen=True, slots=True)
class Authority:
    """Membership of a swarm: whoever knows `secret` can issue certificates that its nodes let in.

    secret: OPEN_AUTHORITY's is a published constant, so that everybody is a member, and the only one in use.
    """

    secret: bytes = field(repr=False)


OPEN_AUTHORITY = Authority(b"mistral-swarm open authority v1: everybody knows this key")


@dataclass(frozen=True, slots=True)
class TlsIdentity:
    """What gRPC needs to speak as a node: its leaf, the leaf's key, and the authority over members' leaves.

    All PEM; private_key_pem is unencrypted PKCS#8.
    """

    node_id: NodeId
    certificate_pem: bytes
    private_key_pem: bytes = field(repr=False)
    authority_pem: bytes


def issue(key: NodeKey, authority: Authority = OPEN_AUTHORITY) -> TlsIdentity:
    """The one TLS identity of `key` under `authority`: the same bytes each time, so that pins outlive restarts."""
    authority_key = _derive_p256(authority.secret, b"swarm authority p-256 v1")
    leaf_key = _derive_p256(key.secret(), b"swarm tls p-256 v1")
    return TlsIdentity(
        node_id=key.node_id,
        certificate_pem=_leaf(key, leaf_key, authority_key).public_bytes(Encoding.PEM),
        private_key_pem=leaf_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        authority_pem=_authority_certificate(authority_key).public_bytes(Encoding.PEM),
    )


def tls_host_name(node_id: NodeId) -> str:
    """The DNS name in a node's certificate: never resolved, only compared."""
    return f"{node_id}.swarm.invalid"


def node_id_of_certificate(certificate: bytes, authority_pem: bytes | None = None) -> NodeId:
    """Whose certificate (PEM or DER) this is: the node whose ed25519 key signed its public key.

    authority_pem: also refuse a certificate that was not issued under this authority (one of another swarm).
    Does not prove that whoever sent the certificate holds its private key: TLS does.
    Raises: Unauthenticated.
    """
    try:
        leaf = _parse(certificate)
        value = leaf.extensions.get_extension_for_oid(_EXTENSION_OID).value
        common_names = [str(name.value) for name in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        public_key_der = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except Exception as error:  # x509 has many of its own, for names and versions that it does not know
        raise Unauthenticated(f"the certificate proves no node id: {type(error).__name__}: {error}") from None
    node_id, signature = _read_extension(value.value if isinstance(value, x509.UnrecognizedExtension) else b"")
    verify_signature(node_id, _SIGNATURE_DOMAIN + public_key_der, signature)
    if common_names != [node_id]:
        # Certificates that share a subject shadow each other when they are pinned.
        raise Unauthenticated("the certificate is named after another node than the one whose key signed it")
    if authority_pem is not None:
        _check_issued_under(leaf, authority_pem)
    return node_id


def _parse(certificate: bytes) -> x509.Certificate:
    if certificate.startswith(b"-----BEGIN"):
        return x509.load_pem_x509_certificate(certificate)
    return x509.load_der_x509_certificate(certificate)


def _read_extension(value: bytes) -> tuple[NodeId, bytes]:
    """Every length in the extension is fixed, so its DER is a template with two holes: 32 and 64 bytes."""
    public_key, signature = value[8:40], value[42:]
    if value != _BEFORE_PUBLIC_KEY + public_key + _BEFORE_SIGNATURE + signature or len(signature) != 64:
        raise Unauthenticated("the certificate's node-key extension is not the one that this protocol defines")
    return node_id_of_public_key(public_key), signature


def _check_issued_under(leaf: x509.Certificate, authority_pem: bytes) -> None:
    try:
        leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(authority_pem))
    except (InvalidSignature, ValueError, TypeError):
        raise Unauthenticated(
            "the certificate belongs to another swarm than ours; run the same version of this program on both sides"
        ) from None


def _leaf(
    key: NodeKey, leaf_key: ec.EllipticCurvePrivateKey, authority_key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    public_key = leaf_key.public_key()
    signature = key.sign(_SIGNATURE_DOMAIN + public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    extension = _BEFORE_PUBLIC_KEY + public_key_of(key.node_id) + _BEFORE_SIGNATURE + signature
    return _sign(
        _builder(_name(key.node_id), _authority_name(authority_key), public_key)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(tls_host_name(key.node_id))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        # Not critical: TLS libraries refuse critical extensions that they do not know.
        .add_extension(x509.UnrecognizedExtension(_EXTENSION_OID, extension), critical=False),
        authority_key,
    )


def _authority_certificate(authority_key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = _authority_name(authority_key)
    return _sign(
        _builder(name, name, authority_key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        ),
        authority_key,
    )


def _builder(subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    spki = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(int.from_bytes(hashlib.sha256(spki).digest()[:16], "big") | 1)
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
    )


def _sign(builder: x509.CertificateBuilder, authority_key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    return builder.sign(authority_key, SHA256(), ecdsa_deterministic=True)


def _derive_p256(secret: bytes, purpose: bytes) -> ec.EllipticCurvePrivateKey:
    # 48 bytes, so that the remainder's bias is negligible. Source: FIPS 186-5, A.2.1.
    wide = HKDF(SHA256(), length=48, salt=None, info=purpose).derive(secret)
    return ec.derive_private_key(int.from_bytes(wide, "big") % (_P256_ORDER - 1) + 1, ec.SECP256R1())


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _authority_name(authority_key: ec.EllipticCurvePrivateKey) -> x509.Name:
    spki = authority_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return _name(f"swarm authority {hashlib.sha256(spki).hexdigest()[:16]}")
