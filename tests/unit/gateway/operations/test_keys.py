"""Who gets in, at what cost, and what a key file says to whoever reads it."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from swarm.errors import BadArgument, KeyRefused, TooManyRequests
from swarm.gateway.operations import key_file, keys
from swarm.gateway.operations.key_file import add_key, read_keys, remove_key
from swarm.gateway.operations.keys import ANONYMOUS, Caller, KeyStore

PLAIN = "correct-horse-battery"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "keys.json"


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys that scrypt was paid for, from here on."""
    paid: list[str] = []
    scrypt = key_file.scrypt

    def counted(key: str, salt: bytes) -> bytes:
        paid.append(key)
        return scrypt(key, salt)

    monkeypatch.setattr(key_file, "scrypt", counted)
    return paid


async def test_without_keys_everybody_is_anonymous() -> None:
    store = KeyStore()
    assert store.is_open
    assert await store.authenticate(None) == await store.authenticate("Bearer whatever") == ANONYMOUS


async def test_a_key_is_its_callers_name(file: Path) -> None:
    alice, bob = add_key(file, "alice"), add_key(file, "bob")
    store = KeyStore(file, [PLAIN])
    assert not store.is_open
    assert await store.authenticate(f"Bearer {alice}") == Caller("alice")
    assert await store.authenticate(f"bearer  {bob} ") == Caller("bob")
    assert await store.authenticate(f"Bearer {PLAIN}") == Caller("api-key-1")
    assert store.key_names == ("alice", "api-key-1", "bob")
    store.close()


@pytest.mark.parametrize("sent", [None, "", "Bearer", "Bearer ", f"Basic {PLAIN}", PLAIN, "Bearer " + "k" * 257])
async def test_what_is_no_bearer_key_is_told_what_to_send(sent: str | None) -> None:
    with pytest.raises(KeyRefused, match="Authorization: Bearer KEY"):
        await KeyStore(keys=[PLAIN]).authenticate(sent)


@pytest.mark.parametrize("change", ["last character", "cut", "id", "not ascii", "another's id"])
async def test_a_key_that_is_nearly_right_is_refused(file: Path, change: str) -> None:
    alice, bob = add_key(file, "alice"), add_key(file, "bob")
    wrong = {
        "last character": alice[:-1] + ("a" if alice[-1] != "a" else "b"),
        "cut": alice[:-1],
        "id": alice.replace(alice[6:18], "0" * 12),
        "not ascii": alice[:-1] + "é",
        "another's id": alice.replace(alice[6:18], bob[6:18]),
    }[change]
    store = KeyStore(file)
    with pytest.raises(KeyRefused, match="does not know"):
        await store.authenticate(f"Bearer {wrong}")
    store.close()


async def test_scrypt_is_paid_once_for_a_key_and_never_for_an_id_that_is_not_there(
    file: Path, hashes: list[str]
) -> None:
    alice = add_key(file, "alice")
    store = KeyStore(file, [PLAIN])
    hashes.clear()
    for _ in range(5):
        await store.authenticate(f"Bearer {alice}")
        await store.authenticate(f"Bearer {PLAIN}")
    assert hashes == [alice]
    for stranger in ("nobody-knows-this-one", "swarm-000000000000-" + "x" * 43):
        with pytest.raises(KeyRefused):
            await store.authenticate(f"Bearer {stranger}")
    assert hashes == [alice]
    store.close()


async def test_a_flood_of_wrong_keys_is_bounded_and_does_not_hold_up_a_known_one(file: Path) -> None:
    alice = add_key(file, "alice")
    store = KeyStore(file)
    await store.authenticate(f"Bearer {alice}")
    wrong = [f"{alice[:-3]}{n:03d}" for n in range(keys.MAX_WAITING + 4)]
    flood = [asyncio.ensure_future(store.authenticate(f"Bearer {key}")) for key in wrong]
    assert await store.authenticate(f"Bearer {alice}") == Caller("alice")
    assert not any(guess.done() and not guess.exception() for guess in flood)
    ends = [type(end) for end in await asyncio.gather(*flood, return_exceptions=True)]
    assert ends.count(TooManyRequests) == 4
    assert ends.count(KeyRefused) == keys.MAX_WAITING
    store.close()


async def test_a_running_gateway_follows_the_file(file: Path, clock: Any) -> None:
    alice = add_key(file, "alice")
    store = KeyStore(file, clock=clock)
    assert await store.authenticate(f"Bearer {alice}") == Caller("alice")
    bob = add_key(file, "bob")
    remove_key(file, "alice")
    clock.now_s += keys.CHECK_FILE_EVERY_S
    assert await store.authenticate(f"Bearer {bob}") == Caller("bob")
    with pytest.raises(KeyRefused):
        await store.authenticate(f"Bearer {alice}")
    remove_key(file, "bob")
    clock.now_s += keys.CHECK_FILE_EVERY_S
    with pytest.raises(KeyRefused):  # the last key gone is a closed door, not an open one
        await store.authenticate(f"Bearer {bob}")
    store.close()


def garble(file: Path) -> None:
    file.write_text("{")


@pytest.mark.parametrize("damage", [garble, Path.unlink])
async def test_a_file_that_breaks_while_serving_changes_nothing(
    file: Path, clock: Any, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    alice = add_key(file, "alice")
    store = KeyStore(file, clock=clock)
    damage(file)
    clock.now_s += keys.CHECK_FILE_EVERY_S
    assert await store.authenticate(f"Bearer {alice}") == Caller("alice")
    with pytest.raises(KeyRefused):
        await store.authenticate("Bearer a-key-that-never-was")
    assert "stay in force" in caplog.text
    store.close()


@pytest.mark.parametrize(
    "key", ["", "short", "with a space in it", "k" * 257, "newline-newline\n", "ключ-ключ-ключ-ключ"]
)
def test_a_key_that_cannot_be_one_is_refused_at_the_start(key: str) -> None:
    with pytest.raises(BadArgument, match="gateway-keys add"):
        KeyStore(keys=[key])


def test_the_file_is_its_owners_and_holds_no_key(file: Path) -> None:
    key = add_key(file, "alice")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    secret = key.rpartition("-")[2]
    assert secret not in file.read_text()
    assert [entry["name"] for entry in json.loads(file.read_text())["keys"]] == ["alice"]
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_two_keys_of_one_name_would_be_one_bill(file: Path) -> None:
    add_key(file, "alice")
    with pytest.raises(BadArgument, match="already"):
        add_key(file, "alice")


@pytest.mark.parametrize("name", ["", "-x", "a b", "a\n", "x" * 65, "=1+1", "anonymous", "api-key-1"])
def test_a_name_that_cannot_be_one(file: Path, name: str) -> None:
    with pytest.raises(BadArgument, match="name"):
        add_key(file, name)
    assert not file.exists()


def test_removing_names_what_is_there(file: Path) -> None:
    add_key(file, "alice")
    with pytest.raises(BadArgument, match="its keys: alice"):
        remove_key(file, "alise")


ENTRY = {"name": "a", "id": "0" * 12, "salt": "A" * 24, "hash": "A" * 43 + "=", "created": "2026-01-01"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        '{"schema": "swarm.gateway-keys/2", "keys": []}',
        '{"schema": "swarm.gateway-keys/1"}',
        *(
            json.dumps({"schema": "swarm.gateway-keys/1", "keys": entries})
            for entries in (
                [1],
                [ENTRY | {"salt": "!"}],
                [ENTRY | {"salt": ""}],
                [ENTRY | {"hash": "AAAA"}],
                [ENTRY | {"name": "../x"}],
                [ENTRY | {"name": "anonymous"}],
                [ENTRY | {"id": "x"}],
                [ENTRY | {"created": 3}],
                [ENTRY, ENTRY],
            )
        ),
    ],
    ids=lambda text: text[:60],
)
def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path, text: str) -> None:
    damaged = tmp_path / "keys.json"
    damaged.write_text(text)
    with pytest.raises(BadArgument, match=str(damaged)):
        KeyStore(damaged)
    with pytest.raises(BadArgument, match=str(damaged)):
        add_key(damaged, "b")
    assert damaged.read_text() == text


def test_the_entry_that_those_are_made_from_is_sound(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"schema": "swarm.gateway-keys/1", "keys": [ENTRY]}))
    assert [key.name for key in read_keys(file)] == ["a"]


def test_a_file_that_is_not_there(file: Path) -> None:
    with pytest.raises(BadArgument, match="gateway-keys add NAME"):
        KeyStore(file)
