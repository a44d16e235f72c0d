"""The file of API keys: names and salted hashes, so that a copy of it lets nobody in. Made, read and changed here.

A key is `swarm-ID-SECRET`: the id names the one hash to compare with, so that a wrong key costs one hash and not one
for each key in the file. The key itself is shown once, when it is made, and kept nowhere.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import secrets
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swarm.errors import BadArgument

KEYS_SCHEMA = "swarm.gateway-keys/1"
SCRYPT_N, SCRYPT_R, SCRYPT_P = 1 << 14, 8, 1
"""16 MiB and tens of milliseconds a guess, on top of a secret of 256 random bits."""
MAX_KEYS_FILE_BYTES = 4 << 20

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
KEY_ID = re.compile(r"[0-9a-f]{12}")
RESERVED = re.compile(r"anonymous|api-key-\d+")
"""Names of callers that no file names: everybody, and keys given on the command line."""


@dataclass(frozen=True, slots=True)
class HashedKey:
    """One line of a key file. created: ISO date."""

    name: str
    id: str
    salt: bytes
    hash: bytes
    created: str

    def matches(self, key: str) -> bool:
        """Whether this is the key, in a time that does not depend on how much of it is right. Slow."""
        return hmac.compare_digest(scrypt(key, self.salt), self.hash)


def default_keys_path() -> Path:
    """Where `swarm gateway-keys` keeps the file unless told otherwise, and where the gateway looks for one."""
    from platformdirs import user_config_path

    return user_config_path("mistral-swarm") / "gateway-keys.json"


def add_key(file: Path, name: str) -> str:
    """Make a key, add its hash to the file (created, readable by its owner only) and return the key, kept nowhere.

    Raises: BadArgument for a name that is taken or cannot be one, and for a file that is damaged.
    """
    if not NAME.fullmatch(name):
        raise BadArgument(
            f"{name!r} cannot name a key: use up to 64 letters, digits and the signs . _ @ -, a letter or digit first"
        )
    if RESERVED.fullmatch(name):
        raise BadArgument(f"{name!r} names keys that no file holds; choose another name")
    keys = read_keys(file) if file.exists() else ()
    if any(key.name == name for key in keys):
        raise BadArgument(f"{file} has a key named {name!r} already; remove it first, or choose another name")
    key_id, salt = secrets.token_hex(6), secrets.token_bytes(16)
    key = f"swarm-{key_id}-{secrets.token_urlsafe(32)}"
    created = time.strftime("%Y-%m-%d", time.gmtime())
    write_keys(file, (*keys, HashedKey(name, key_id, salt, scrypt(key, salt), created)))
    return key


def remove_key(file: Path, name: str) -> None:
    """Take the key of that name out of the file; a running gateway follows in a second or so. Raises: BadArgument."""
    keys = read_keys(file)
    left = tuple(key for key in keys if key.name != name)
    if len(left) == len(keys):
        names = ", ".join(key.name for key in keys) or "none"
        raise BadArgument(f"{file} has no key named {name!r}; its keys: {names}")
    write_keys(file, left)


def read_keys(file: Path) -> tuple[HashedKey, ...]:
    """What the file holds. Raises: BadArgument naming the file and what is wrong with it."""
    try:
        with file.open("rb") as source:
            text = source.read(MAX_KEYS_FILE_BYTES + 1)
    except FileNotFoundError:
        raise BadArgument(f"there is no key file {file}; make one with: swarm gateway-keys add NAME") from None
    except OSError as error:
        raise BadArgument(f"the key file {file} cannot be read: {error.strerror}") from error
    try:
        if len(text) > MAX_KEYS_FILE_BYTES:
            raise ValueError(f"it is larger than {MAX_KEYS_FILE_BYTES} bytes")
        keys = keys_from_json(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise BadArgument(
            f"{file} is not a key file: {error}; restore it, or move it away and run: swarm gateway-keys add NAME"
        ) from error
    return keys


def keys_from_json(document: Any) -> tuple[HashedKey, ...]:
    """Raises: ValueError."""
    if not isinstance(document, dict) or document.get("schema") != KEYS_SCHEMA:
        raise ValueError(f"its schema is not {KEYS_SCHEMA}")
    entries = document.get("keys")
    if not isinstance(entries, list):
        raise ValueError("it has no list of keys")
    keys = tuple(key_from_json(entry) for entry in entries)
    if len({key.name for key in keys}) != len(keys) or len({key.id for key in keys}) != len(keys):
        raise ValueError("two of its keys have one name or id")
    return keys


def key_from_json(entry: Any) -> HashedKey:
    """Raises: ValueError."""
    fields = ("name", "id", "salt", "hash", "created")
    if not isinstance(entry, dict) or not all(isinstance(entry.get(field), str) for field in fields):
        raise ValueError(f"a key is an object with the strings {', '.join(fields)}")
    salt, digest = (base64.b64decode(entry[field], validate=True) for field in ("salt", "hash"))
    is_named = NAME.fullmatch(entry["name"]) and KEY_ID.fullmatch(entry["id"])
    if not is_named or RESERVED.fullmatch(entry["name"]) or len(salt) < 16 or len(digest) != 32:
        raise ValueError(f"the key {entry['name']!r} is damaged")
    return HashedKey(entry["name"], entry["id"], salt, digest, entry["created"])


def write_keys(file: Path, keys: Iterable[HashedKey]) -> None:
    """Replace the file as a whole, with mode 0600; a crash leaves the old one or the new one."""
    entries = [
        {
            "name": key.name,
            "id": key.id,
            "salt": base64.b64encode(key.salt).decode(),
            "hash": base64.b64encode(key.hash).decode(),
            "created": key.created,
        }
        for key in keys
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "w") as target:
            json.dump({"schema": KEYS_SCHEMA, "keys": entries}, target, indent=1)
            target.flush()
            os.fsync(target.fileno())
        os.replace(temporary, file)
    except BaseException:
        os.unlink(temporary)
        raise


def file_stamp(file: Path) -> tuple[int, ...] | None:
    """What changes when a file does; None when there is none to look at."""
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def scrypt(key: str, salt: bytes) -> bytes:
    return hashlib.scrypt(key.encode(), salt=salt, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P, dklen=32)
