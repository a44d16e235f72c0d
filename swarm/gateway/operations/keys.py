"""API keys: who is asking. A key file holds names and salted hashes only, so a copy of it lets nobody in.

A key made here is `swarm-ID-SECRET`: the id names the one hash to compare with, so that a wrong key costs one hash and
not one for each key in the file. Does NOT know HTTP beyond the text of an Authorization header.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swarm.errors import BadArgument, KeyRefused, TooManyRequests

logger = logging.getLogger(__name__)

KEYS_SCHEMA = "swarm.gateway-keys/1"
SCRYPT_N, SCRYPT_R, SCRYPT_P = 1 << 14, 8, 1
"""16 MiB and some 50 ms a guess: OWASP's figures for scrypt allow this pair with p=5; a random secret needs less."""
MIN_KEY_CHARS = 16
"""For keys that the operator chooses: fewer characters can be guessed through a rate limit of thousands a minute."""
MAX_KEY_CHARS = 256
MAX_KEYS_FILE_BYTES = 4 << 20
CHECK_FILE_EVERY_S = 1.0
"""How long a key removed from the file still works: less costs a stat() call more often."""
MAX_REMEMBERED = 1024
MAX_WAITING = 16

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
MADE_KEY = re.compile(r"swarm-([0-9a-f]{12})-[A-Za-z0-9_-]{32,}")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is asking, by the name of the key that proved it; what limits and the ledger count by."""

    key_name: str


ANONYMOUS = Caller("anonymous")
"""Everybody, where no keys are configured."""


@dataclass(frozen=True, slots=True)
class HashedKey:
    """One line of a key file. created: ISO date."""

    name: str
    id: str
    salt: bytes
    hash: bytes
    created: str

    def matches(self, key: str) -> bool:
        """Whether this is the key, in a time that does not depend on how much of it is right. Takes some 50 ms."""
        return hmac.compare_digest(scrypt(key, self.salt), self.hash)


def default_keys_path() -> Path:
    """Where `swarm gateway-keys` keeps the file unless told otherwise, and where the gateway looks for one."""
    from platformdirs import user_config_path

    return user_config_path("mistral-swarm") / "gateway-keys.json"


class KeyStore:
    """Names the caller behind an API key.

    file: a key file, read again when it changes. keys: plain keys from flags or the environment, named api-key-1 and so
    on. With neither, everybody is ANONYMOUS; with a file that has no keys, nobody gets in.
    A key that was right once is remembered (under a MAC keyed for this process, until the file changes), so that scrypt
    is paid once per key and not once per request; hashing runs on a thread of its own.
    Raises: BadArgument for a file that is missing or damaged, and for a key too short to be one.
    """

    def __init__(
        self, file: Path | None = None, keys: Iterable[str] = (), *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._file = file
        self._clock = clock
        self._mac_key = secrets.token_bytes(32)
        self._plain = {self._mac(checked_key(key)): Caller(f"api-key-{n}") for n, key in enumerate(keys, start=1)}
        self._by_id: dict[str, HashedKey] = {}
        self._stamp: tuple[int, ...] | None = None
        self._checked_s = clock()
        self._remembered: OrderedDict[bytes, Caller] = OrderedDict()
        self._hasher = ThreadPoolExecutor(1, "gateway-keys")
        self._n_waiting = 0
        if file is not None:
            self._stamp = file_stamp(file)
            self._by_id = {key.id: key for key in read_keys(file)}

    @property
    def is_open(self) -> bool:
        """Whether no key is asked for."""
        return self._file is None and not self._plain

    @property
    def key_names(self) -> tuple[str, ...]:
        return tuple(
            sorted(caller.key_name for caller in (*self._plain.values(), *map(caller_of, self._by_id.values())))
        )

    async def authenticate(self, authorization: str | None) -> Caller:
        """The caller behind an Authorization header (`Bearer KEY`); None when the request has none.

        Raises: KeyRefused, TooManyRequests (too many unknown keys are being checked at the moment).
        """
        if self.is_open:
            return ANONYMOUS
        key = bearer_key(authorization)
        self._reread_changed_file()
        mac = self._mac(key)
        known = self._remembered.get(mac) or self._plain.get(mac)
        if known is not None:
            return known
        made = MADE_KEY.fullmatch(key)
        hashed = self._by_id.get(made[1]) if made else None
        if hashed is None or not await self._matches(hashed, key):
            raise KeyRefused("this gateway does not know that API key; ask its operator for one")
        if self._by_id.get(hashed.id) == hashed:  # else it was removed while it was being checked
            self._remember(mac, caller_of(hashed))
        return caller_of(hashed)

    def close(self) -> None:
        self._hasher.shutdown(wait=False, cancel_futures=True)

    async def _matches(self, hashed: HashedKey, key: str) -> bool:
        if self._n_waiting >= MAX_WAITING:
            raise TooManyRequests("too many API keys are being checked at the moment; try again in a second")
        self._n_waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._hasher, hashed.matches, key)
        finally:
            self._n_waiting -= 1

    def _remember(self, mac: bytes, caller: Caller) -> None:
        self._remembered[mac] = caller
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)

    def _mac(self, key: str) -> bytes:
        return hmac.digest(self._mac_key, key.encode(), "sha256")

    def _reread_changed_file(self) -> None:
        """Take in the file's present keys. One that has become unreadable changes nothing, and the log says so."""
        if self._file is None or self._clock() - self._checked_s < CHECK_FILE_EVERY_S:
            return
        self._checked_s = self._clock()
        stamp = file_stamp(self._file)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            keys = read_keys(self._file)
        except BadArgument as error:
            logger.warning("%s; the keys read before stay in force", error.message)
            return
        self._by_id = {key.id: key for key in keys}
        self._remembered.clear()
        logger.info("%s was read again: %d keys", self._file, len(keys))


def bearer_key(authorization: str | None) -> str:
    """The key in `Bearer KEY`. Raises: KeyRefused saying what to send."""
    scheme, _, key = (authorization or "").strip().partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer" or not key or len(key) > MAX_KEY_CHARS:
        raise KeyRefused("this gateway asks for an API key; send the header `Authorization: Bearer KEY`")
    return key


def checked_key(key: str) -> str:
    """`key`, if it can be sent in a header and is long enough to be a secret. Raises: BadArgument."""
    if not MIN_KEY_CHARS <= len(key) <= MAX_KEY_CHARS or not key.isascii() or not key.isprintable() or " " in key:
        raise BadArgument(
            f"an API key has {MIN_KEY_CHARS} to {MAX_KEY_CHARS} printable ASCII characters and no space; make one with: "
            "swarm gateway-keys add NAME"
        )
    return key


def caller_of(key: HashedKey) -> Caller:
    return Caller(key.name)


def scrypt(key: str, salt: bytes) -> bytes:
    return hashlib.scrypt(key.encode(), salt=salt, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P, dklen=32)


# -- the key file ----------------------------------------------------------------------------------------------------


def add_key(file: Path, name: str) -> str:
    """Make a key, add its hash to the file (created, readable by its owner only) and return the key, kept nowhere.

    Raises: BadArgument for a name that is taken or cannot be one, and for a file that is damaged.
    """
    if not NAME.fullmatch(name):
        raise BadArgument(
            f"{name!r} cannot name a key: use up to 64 letters, digits and the signs . _ @ -, a letter or digit first"
        )
    keys = read_keys(file) if file.exists() else ()
    if any(key.name == name for key in keys):
        raise BadArgument(f"{file} has a key named {name!r} already; remove it first, or choose another name")
    key_id, salt = secrets.token_hex(6), secrets.token_bytes(16)
    key = f"swarm-{key_id}-{secrets.token_urlsafe(32)}"
    created = time.strftime("%Y-%m-%d", time.gmtime())
    write_keys(file, (*keys, HashedKey(name, key_id, salt, scrypt(key, salt), created)))
    return key


def remove_key(file: Path, name: str) -> None:
    """Take the key of that name out of the file; a running gateway follows within a second or so. Raises: BadArgument."""
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
    if not NAME.fullmatch(entry["name"]) or len(salt) < 16 or len(digest) != 32:
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
