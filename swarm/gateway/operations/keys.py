"""Who is asking: the name behind an API key. Does NOT know HTTP beyond the text of an Authorization header."""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from swarm.errors import BadArgument, KeyRefused, TooManyRequests
from swarm.gateway.operations.key_file import HashedKey, file_stamp, read_keys

logger = logging.getLogger(__name__)

MIN_KEY_CHARS = 16
"""For keys that the operator chooses: fewer characters can be guessed through a rate limit of thousands a minute."""
MAX_KEY_CHARS = 256
CHECK_FILE_EVERY_S = 1.0
"""How long a key removed from the file still works: less costs a stat() call more often."""
MAX_REMEMBERED = 1024
MAX_WAITING = 16

MADE_KEY = re.compile(r"swarm-([0-9a-f]{12})-[A-Za-z0-9_-]{32,}")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is asking, by the name of the key that proved it; what limits and the ledger count by."""

    key_name: str


ANONYMOUS = Caller("anonymous")
"""Everybody, where no keys are configured."""


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
            f"an API key has {MIN_KEY_CHARS} to {MAX_KEY_CHARS} printable ASCII characters and no space; make one with "
            "`swarm gateway-keys add NAME`"
        )
    return key


def caller_of(key: HashedKey) -> Caller:
    return Caller(key.name)
