"""Publishers' keys by name, whom a user trusts, and signatures in files of their own."""

from __future__ import annotations

import json
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from swarm.errors import BadArgument, Unauthenticated
from swarm.identity import Keyring, NodeKey, sign_detached, verify_detached

DOMAIN = b"a test\n"


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring(tmp_path / "keys")


def test_a_key_is_kept_where_only_its_owner_reads_it(keyring: Keyring) -> None:
    key = keyring.new("me")
    assert stat.S_IMODE((keyring.folder / "me.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(keyring.folder.stat().st_mode) == 0o700
    assert keyring.load("me").node_id == key.node_id
    assert keyring.names() == ["me"]


def test_a_key_is_never_made_twice_under_one_name(keyring: Keyring) -> None:
    before = keyring.new("me").node_id
    with pytest.raises(BadArgument, match="already"):
        keyring.new("me")
    assert keyring.load("me").node_id == before


def test_a_key_that_others_may_read_is_refused(keyring: Keyring) -> None:
    keyring.new("me")
    (keyring.folder / "me.key").chmod(0o640)
    with pytest.raises(BadArgument, match="chmod 600"):
        keyring.load("me")


@pytest.mark.parametrize("name", ["", "../me", "a/b", ".hidden", "a b", "x" * 65, "a\n"])
def test_names_that_are_paths_are_refused(keyring: Keyring, name: str) -> None:
    for action in (keyring.new, keyring.load, lambda n: keyring.trust(NodeKey.generate().node_id, n)):
        with pytest.raises(BadArgument, match="not a key's name"):
            action(name)
    assert not keyring.folder.exists()


def test_trust_is_by_name_and_by_id(keyring: Keyring) -> None:
    alice, bob = NodeKey.generate().node_id, NodeKey.generate().node_id
    assert keyring.trusted() == {}
    keyring.trust(alice, "alice")
    keyring.trust(bob, "bob")
    assert keyring.trusted() == {alice: "alice", bob: "bob"}
    assert (keyring.find("alice"), keyring.find(bob)) == (alice, bob)
    assert stat.S_IMODE((keyring.folder / "trusted").stat().st_mode) == 0o600


def test_a_name_stands_for_one_key_and_a_key_has_one_name(keyring: Keyring) -> None:
    old, new = NodeKey.generate().node_id, NodeKey.generate().node_id
    keyring.trust(old, "alice")
    keyring.trust(new, "alice")
    assert keyring.trusted() == {new: "alice"}
    keyring.trust(new, "al")
    assert keyring.trusted() == {new: "al"}


def test_many_who_trust_at_once_are_all_heard(keyring: Keyring) -> None:
    keys = {NodeKey.generate().node_id: f"friend-{i}" for i in range(24)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda pair: Keyring(keyring.folder).trust(*pair), keys.items()))
    assert keyring.trusted() == keys


def test_no_key_is_called_what_stands_for_all_of_them(keyring: Keyring) -> None:
    for make in (lambda: keyring.new("trusted"), lambda: keyring.trust(NodeKey.generate().node_id, "trusted")):
        with pytest.raises(BadArgument, match="every key that is trusted"):
            make()


def test_own_keys_are_known_by_name_and_one_that_is_spoilt_spoils_nothing_else(keyring: Keyring) -> None:
    me, alice = keyring.new("me").node_id, NodeKey.generate().node_id
    keyring.new("spoilt")
    (keyring.folder / "spoilt.key").chmod(0o644)
    keyring.trust(alice, "alice")
    assert keyring.known() == {me: "own key me", alice: "alice"}


def test_what_nobody_is_called_is_refused(keyring: Keyring) -> None:
    with pytest.raises(BadArgument, match="swarm keys list"):
        keyring.find("nobody")
    with pytest.raises(BadArgument, match="swarm keys list"):
        keyring.trust("not an id", "alice")


def test_a_damaged_trust_file_names_its_line(keyring: Keyring) -> None:
    keyring.trust(NodeKey.generate().node_id, "alice")
    with (keyring.folder / "trusted").open("a") as file:
        file.write("nonsense here\n")
    with pytest.raises(BadArgument, match="trusted, line 2"):
        keyring.trusted()


def test_a_detached_signature_names_its_signer() -> None:
    key = NodeKey.generate()
    assert verify_detached(sign_detached(key, DOMAIN, b"data"), DOMAIN, b"data") == key.node_id


@pytest.mark.parametrize(
    ("domain", "data"), [(b"another\n", b"data"), (DOMAIN, b"datA"), (DOMAIN, b""), (DOMAIN[:-1], b"\ndata!")]
)
def test_it_holds_for_nothing_else(domain: bytes, data: bytes) -> None:
    signature = sign_detached(NodeKey.generate(), DOMAIN, b"data")
    with pytest.raises(Unauthenticated):
        verify_detached(signature, domain, data)


def test_another_signer_cannot_be_named_and_malformed_files_are_refused() -> None:
    signed = json.loads(sign_detached(NodeKey.generate(), DOMAIN, b"data"))
    stranger = NodeKey.generate().node_id
    for changed in (
        {**signed, "signer": stranger},
        {**signed, "signer": signed["signer"].upper()},
        {**signed, "signature": signed["signature"][:-2]},
        {**signed, "signature": signed["signature"].upper()},
        {**signed, "schema": "swarm.signature/2"},
        {**signed, "more": 1},
        {},
        [],
    ):
        with pytest.raises(Unauthenticated):
            verify_detached(json.dumps(changed).encode(), DOMAIN, b"data")
    for raw in (b"", b"{", b"\xff", b"[" * 1000, b" " * 2000):
        with pytest.raises(Unauthenticated):
            verify_detached(raw, DOMAIN, b"data")
