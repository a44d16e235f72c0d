"""A node's key: one per file, whoever creates it, and an id that only its holder can sign for."""

import os
import stat
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import BadArgument, Unauthenticated
from swarm.identity import NodeKey, public_key_of, verify_signature
from swarm.terms import NodeId, is_node_id


def test_node_id_is_the_public_key() -> None:
    key = NodeKey.generate()
    assert is_node_id(key.node_id)
    assert len(public_key_of(key.node_id)) == 32
    assert NodeKey.from_pem(key.to_pem()).node_id == key.node_id


def test_known_key_has_its_known_id() -> None:
    """Golden: ids must not change between versions. Source of the seed and of the public key: RFC 8032, 7.1, test 1."""
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    key = NodeKey(Ed25519PrivateKey.from_private_bytes(seed))
    assert key.node_id == "25njqamcweflpvkl73j4szahhihoc4xt3ktcgjnpaingr5yhkena"
    assert public_key_of(key.node_id).hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"


KEY, OTHER = NodeKey.generate(), NodeKey.generate()


@given(payload=st.binary(max_size=200))
def test_signature_binds_key_and_payload(payload: bytes) -> None:
    key, other = KEY, OTHER
    signature = key.sign(payload)
    verify_signature(key.node_id, payload, signature)
    for node_id, signed, sig in (
        (other.node_id, payload, signature),
        (key.node_id, payload + b"x", signature),
        (key.node_id, payload, signature[:-1]),
        (key.node_id, payload, bytes(64)),
        (key.node_id, payload, b""),
    ):
        with pytest.raises(Unauthenticated):
            verify_signature(node_id, signed, sig)


@given(text=st.one_of(st.text(max_size=60), st.from_regex(r"[a-z2-7]{52}", fullmatch=True)))
def test_any_text_is_a_canonical_id_or_unauthenticated(text: str) -> None:
    try:
        public_key = public_key_of(text)
    except Unauthenticated:
        return
    assert len(public_key) == 32
    assert text[-1] in "aq"  # 52 characters hold 260 bits, of which the last 4 must be zero


def test_second_spelling_of_an_id_is_refused() -> None:
    """One key under two ids would be two nodes in every table."""
    node_id = NodeKey.generate().node_id
    spelled = node_id[:-1] + {"a": "b", "q": "r"}[node_id[-1]]
    with pytest.raises(Unauthenticated):
        verify_signature(NodeId(spelled), b"", bytes(64))


def test_repr_shows_no_secret() -> None:
    key = NodeKey.generate()
    assert repr(key) == f"NodeKey({key.node_id[:8]})"


def test_load_or_create_makes_one_private_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "node.key"
    first = NodeKey.load_or_create(path)
    assert NodeKey.load_or_create(path).node_id == first.node_id
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [p.name for p in path.parent.iterdir()] == ["node.key"]


def test_racing_creators_get_the_same_key(tmp_path: Path) -> None:
    path, ids, start = tmp_path / "node.key", [], threading.Barrier(8)

    def create() -> None:
        start.wait()
        ids.append(NodeKey.load_or_create(path).node_id)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 8
    assert len(set(ids)) == 1
    assert os.listdir(tmp_path) == ["node.key"]


def test_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    NodeKey.load_or_create(path)
    path.chmod(0o640)
    with pytest.raises(BadArgument, match="chmod 600"):
        NodeKey.load_or_create(path)


@pytest.mark.parametrize(
    "content", [b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", b"\xff" * 100]
)
def test_file_that_is_no_key_is_kept_and_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "node.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(BadArgument, match="move it away"):
        NodeKey.load_or_create(path)
    assert path.read_bytes() == content


def test_keys_of_another_kind_are_refused() -> None:
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(BadArgument, match="ed25519"):
        NodeKey.from_pem(pem)


def test_unusable_path_is_a_bad_argument(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "node.key", tmp_path):
        with pytest.raises(BadArgument, match="can't be used"):
            NodeKey.load_or_create(path)
