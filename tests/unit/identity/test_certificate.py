"""Certificates: the same each time, proof of a node id, and nothing else passes for one."""

import datetime
import hashlib
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import Unauthenticated
from swarm.identity import OPEN_AUTHORITY, Authority, NodeKey, issue, node_id_of_certificate, public_key_of

LIBP2P_OID = x509.ObjectIdentifier("1.3.6.1.4.1.53594.1.1")


def certificate_with(
    *, name: str, extension: bytes | None, key: ec.EllipticCurvePrivateKey | None = None
) -> tuple[bytes, ec.EllipticCurvePrivateKey]:
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.datetime(2020, 1, 1))
        .not_valid_after(datetime.datetime(2040, 1, 1))
    )
    if extension is not None:
        builder = builder.add_extension(x509.UnrecognizedExtension(LIBP2P_OID, extension), critical=False)
    return builder.sign(key, SHA256()).public_bytes(Encoding.DER), key


def extension_for(node: NodeKey, leaf_key: ec.EllipticCurvePrivateKey) -> bytes:
    """Written out from the libp2p TLS specification, independently of the room's template."""
    spki = leaf_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    public_key = b"\x08\x01\x12\x20" + public_key_of(node.node_id)
    signature = node.sign(b"libp2p-tls-handshake:" + spki)
    body = b"\x04" + bytes([len(public_key)]) + public_key + b"\x04" + bytes([len(signature)]) + signature
    return b"\x30" + bytes([len(body)]) + body


def test_identity_is_the_same_bytes_each_time() -> None:
    """Pins of a leaf must survive the node's restart."""
    key = NodeKey.generate()
    assert issue(key) == issue(NodeKey.from_pem(key.to_pem()))
    assert issue(key).authority_pem == issue(NodeKey.generate()).authority_pem
    assert issue(key).private_key_pem != issue(NodeKey.generate()).private_key_pem


def test_known_key_has_its_known_certificate() -> None:
    """Golden: a new version that issued other bytes would break every pin held by running clients."""
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    tls = issue(NodeKey(Ed25519PrivateKey.from_private_bytes(seed)))
    digest = hashlib.sha256(tls.certificate_pem).hexdigest()
    assert digest == "a8871aa80b6772d77f62bc800ebaf191fa1f363a355a6101ec407eb5fc87d1c7"


def test_certificate_proves_its_node_id() -> None:
    key = NodeKey.generate()
    tls = issue(key)
    assert node_id_of_certificate(tls.certificate_pem) == key.node_id
    der = ssl.PEM_cert_to_DER_cert(tls.certificate_pem.decode())
    assert node_id_of_certificate(der, tls.authority_pem) == key.node_id


def test_repr_shows_no_private_key() -> None:
    assert "PRIVATE" not in repr(issue(NodeKey.generate()))
    assert "secret" not in repr(Authority(b"a secret"))


def test_an_independent_libp2p_extension_is_read() -> None:
    node = NodeKey.generate()
    leaf_key = ec.generate_private_key(ec.SECP256R1())
    der, _ = certificate_with(name=node.node_id, extension=extension_for(node, leaf_key), key=leaf_key)
    assert node_id_of_certificate(der) == node.node_id
    leaf = x509.load_pem_x509_certificate(issue(node).certificate_pem)
    ours = leaf.extensions.get_extension_for_oid(LIBP2P_OID).value
    assert isinstance(ours, x509.UnrecognizedExtension)
    assert ours.value[:8] == extension_for(node, leaf_key)[:8]


def test_stolen_extension_proves_nothing() -> None:
    """An impostor copies a node's extension into a certificate for a key of its own."""
    victim = NodeKey.generate()
    leaf = x509.load_pem_x509_certificate(issue(victim).certificate_pem)
    stolen = leaf.extensions.get_extension_for_oid(LIBP2P_OID).value
    assert isinstance(stolen, x509.UnrecognizedExtension)
    der, _ = certificate_with(name=victim.node_id, extension=stolen.value)
    with pytest.raises(Unauthenticated, match="signature"):
        node_id_of_certificate(der)


def test_certificate_named_after_another_node_is_refused() -> None:
    node, other = NodeKey.generate(), NodeKey.generate()
    leaf_key = ec.generate_private_key(ec.SECP256R1())
    der, _ = certificate_with(name=other.node_id, extension=extension_for(node, leaf_key), key=leaf_key)
    with pytest.raises(Unauthenticated, match="named after another"):
        node_id_of_certificate(der)


def test_certificate_of_another_swarm_is_refused() -> None:
    key = NodeKey.generate()
    private = issue(key, Authority(b"an invite's secret"))
    assert node_id_of_certificate(private.certificate_pem, private.authority_pem) == key.node_id
    with pytest.raises(Unauthenticated, match="another swarm"):
        node_id_of_certificate(private.certificate_pem, issue(key, OPEN_AUTHORITY).authority_pem)


@pytest.mark.parametrize("extension", [None, b"", b"\x30\x00", b"\x05\x00", bytes(106), bytes(107), b"\x30" * 200])
def test_certificate_without_the_extension_is_refused(extension: bytes | None) -> None:
    der, _ = certificate_with(name=NodeKey.generate().node_id, extension=extension)
    with pytest.raises(Unauthenticated):
        node_id_of_certificate(der)


@given(data=st.binary(max_size=300))
def test_any_bytes_are_unauthenticated(data: bytes) -> None:
    for certificate in (data, b"-----BEGIN CERTIFICATE-----\n" + data):
        with pytest.raises(Unauthenticated):
            node_id_of_certificate(certificate)


TLS = issue(NodeKey.generate())


@given(place=st.integers(min_value=0, max_value=10_000), bit=st.integers(min_value=0, max_value=7))
def test_a_flipped_bit_never_makes_another_node(place: int, bit: int) -> None:
    der = bytearray(ssl.PEM_cert_to_DER_cert(TLS.certificate_pem.decode()))
    der[place % len(der)] ^= 1 << bit
    try:
        assert node_id_of_certificate(bytes(der)) == TLS.node_id  # the flip was outside of what the node's key signs
    except Unauthenticated:
        pass
    with pytest.raises(Unauthenticated):
        node_id_of_certificate(bytes(der), TLS.authority_pem)
