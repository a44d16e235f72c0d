"""A publisher's keys by name, and the keys of others that this user trusts, in one folder of small files.

NAME.key    a private key, mode 0600
trusted     lines of "ID NAME"
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
from pathlib import Path

from swarm.errors import BadArgument, Unauthenticated
from swarm.identity.keys import NodeKey, public_key_of
from swarm.terms import NodeId

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SUFFIX = ".key"
EVERYONE = _TRUSTED = "trusted"
_MAX_TRUSTED_BYTES = 1 << 20


class Keyring:
    """The keys in one folder, which is made (mode 0700) with the first of them. Raises: BadArgument throughout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def new(self, name: str) -> NodeKey:
        """A fresh key under a name that no key has yet."""
        path = self._path(name)
        if path.exists():
            raise BadArgument(f"there is a key {name!r} already; choose another name, or move {path} away")
        return NodeKey.load_or_create(path)

    def load(self, name: str) -> NodeKey:
        path = self._path(name)
        if not path.is_file():
            known = ", ".join(self.names()) or "none yet"
            raise BadArgument(f"there is no key {name!r} (keys: {known}); make it with: swarm keys new {name}")
        return NodeKey.load_or_create(path)

    def names(self) -> list[str]:
        found = (path.name.removesuffix(_SUFFIX) for path in self.folder.glob(f"*{_SUFFIX}") if path.is_file())
        return sorted(name for name in found if _NAME.fullmatch(name))

    def trust(self, node_id: str, name: str) -> None:
        """Remember whose key this is. A name that stood for another key now stands for this one."""
        _check_name(name)
        _check_id(node_id)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # of two who trust at once, each adds to what the other wrote
            self._write_trusted(node_id, name)

    def _write_trusted(self, node_id: str, name: str) -> None:
        others = {key: known for key, known in self.trusted().items() if key != node_id and known != name}
        lines = "".join(f"{key} {known}\n" for key, known in {**others, NodeId(node_id): name}.items())
        temporary = self.folder / f".{_TRUSTED}.{secrets.token_hex(8)}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(lines)
            os.replace(temporary, self.folder / _TRUSTED)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)

    def trusted(self) -> dict[NodeId, str]:
        """Id -> name of every key that this user trusts."""
        path = self.folder / _TRUSTED
        try:
            with path.open("rb") as file:
                text = file.read(_MAX_TRUSTED_BYTES).decode("ascii", "replace")
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise BadArgument(f"{path} cannot be read: {error.strerror}; mend the path or its rights") from None
        found: dict[NodeId, str] = {}
        for number, line in enumerate(text.splitlines(), 1):
            node_id, _, name = line.partition(" ")
            try:
                _check_id(node_id)
                _check_name(name)
            except BadArgument as error:
                raise BadArgument(f"{path}, line {number}: {error.message}") from None
            found[NodeId(node_id)] = name
        return found

    def known(self) -> dict[NodeId, str]:
        """Id -> name of the keys that this user trusts, and of their own, as far as those can be loaded."""
        own: dict[NodeId, str] = {}
        for name in self.names():
            with contextlib.suppress(BadArgument):  # signing with it says what is wrong; naming a signer need not fail
                own[self.load(name).node_id] = f"own key {name}"
        return own | self.trusted()

    def find(self, who: str) -> NodeId:
        """The id that `who` means: an id itself, a trusted key's name, or one of our own keys' names."""
        for node_id, name in self.trusted().items():
            if who == name:
                return node_id
        if _NAME.fullmatch(who) and self._path(who).is_file():
            return self.load(who).node_id
        _check_id(who)
        return NodeId(who)

    def _path(self, name: str) -> Path:
        _check_name(name)
        return self.folder / f"{name}{_SUFFIX}"


def _check_name(name: str) -> None:
    if _NAME.fullmatch(name) is None:
        raise BadArgument(f"{name[:80]!r} is not a key's name: letters, digits, dots and dashes, at most 64")
    if name == EVERYONE:
        raise BadArgument(f"`--publisher {name}` stands for every key that is trusted; choose another name")


def _check_id(text: str) -> None:
    try:
        public_key_of(text)
    except Unauthenticated:
        raise BadArgument(
            f"{text[:80]!r} is neither a key's id (52 characters, from `swarm keys show`) nor a name that is "
            "known here; see: swarm keys list"
        ) from None
