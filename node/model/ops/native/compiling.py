"""A folder of C files -> a shared library in the user's cache, built by the machine's compiler when it is first needed.

The cache is keyed by all that the library depends on: source, flags, compiler. Only a folder that is the user's own,
and that nobody else may write to or put another in the place of, is read from; where there is none, the library is
built in a folder that is gone again as soon as it is loaded. Knows no torch and no kernels.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import platformdirs

COMPILERS = ("cc", "gcc", "clang")
TIMEOUT_S = 120.0
_FLAGS = ("-O3", "-std=gnu11", "-fPIC", "-shared", "-w")
_THREADS = "-fopenmp"
"""Tried first; a compiler without it builds a library that computes the same on one thread."""


class CannotCompile(Exception):
    """No compiler, or none that takes the source. The text says which, in words for a user."""


def load_compiled(folder: Path, flags: Sequence[str], cache_dir: Path | None = None) -> ctypes.CDLL:
    """The library that the .c files of this folder make, with its .h files. Raises: CannotCompile.

    Two processes that build it at once each build a whole one, and the last to end names it.
    """
    cache = _own_folder(cache_dir or Path(platformdirs.user_cache_dir("mistral-swarm")) / "kernels")
    reasons = []
    for compiler in dict.fromkeys(filter(None, map(shutil.which, COMPILERS))):
        for threads in ((_THREADS,), ()):
            command = [compiler, *_FLAGS, *flags, *threads]
            try:
                return _cached(command, folder, cache) if cache else _passing(command, folder)
            except CannotCompile as error:
                reasons.append(f"{Path(compiler).name}: {error}")
    raise CannotCompile(reasons[0] if reasons else f"none of {', '.join(COMPILERS)} is installed")


def _cached(command: list[str], folder: Path, cache: Path) -> ctypes.CDLL:
    library = cache / f"{folder.name}-{_key(command, folder)}.so"
    try:
        if _is_own(library.lstat()):
            return ctypes.CDLL(str(library))
    except OSError:
        pass  # not built yet, or cut short
    try:
        # A folder of its own: nobody sees the library before it is whole.
        with tempfile.TemporaryDirectory(dir=cache) as workplace:
            built = Path(workplace) / library.name
            _build(command, folder, built)
            os.replace(built, library)
        return ctypes.CDLL(str(library))
    except OSError:
        return _passing(command, folder)  # the cache's disk is full, or nothing on it may be run


def _passing(command: list[str], folder: Path) -> ctypes.CDLL:
    try:
        with tempfile.TemporaryDirectory(prefix="swarm-kernels-") as workplace:
            library = Path(workplace) / f"{folder.name}.so"
            _build(command, folder, library)
            return ctypes.CDLL(str(library))
    except OSError as error:
        raise CannotCompile(str(error)) from error


def _build(command: list[str], folder: Path, library: Path) -> None:
    sources = map(str, sorted(folder.glob("*.c")))
    try:
        ended = subprocess.run(
            [*command, *sources, "-o", str(library)], capture_output=True, text=True, timeout=TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotCompile(str(error)) from error
    if ended.returncode:
        raise CannotCompile(next(iter(ended.stderr.strip().splitlines()), f"status {ended.returncode}"))
    library.chmod(0o700)  # whatever the umask: what others may write to is not loaded


def _own_folder(folder: Path) -> Path | None:
    """The folder, made where it is missing; None where it cannot be written or others can write to it or replace it."""
    try:
        for missing in reversed([at for at in (folder, *folder.parents) if not at.exists()]):
            missing.mkdir(exist_ok=True, mode=0o700)
        state = folder.lstat()
        if not (stat.S_ISDIR(state.st_mode) and _is_own(state) and os.access(folder, os.W_OK)):
            return None
        return folder if all(_keeps(at.stat()) for at in _above(folder)) else None
    except OSError:
        return None


def _above(folder: Path) -> Iterator[Path]:
    """The folders that it lies in, up to the user's home; up to the root where it lies elsewhere."""
    home = Path.home().resolve()
    for parent in folder.resolve().parents:
        yield parent
        if parent == home:
            return


def _keeps(state: os.stat_result) -> bool:
    """Nobody but the user and root can replace what this folder holds of the user's."""
    writers = stat.S_IWOTH if state.st_gid == state.st_uid else stat.S_IWGRP | stat.S_IWOTH  # a group of its user alone
    is_shared = state.st_mode & writers and not state.st_mode & stat.S_ISVTX
    return state.st_uid in (0, os.geteuid()) and not is_shared


def _is_own(state: os.stat_result) -> bool:
    return state.st_uid == os.geteuid() and not state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _key(command: list[str], folder: Path) -> str:
    """Of the sources, the flags and the compiler, by its path, size and time."""
    state = os.stat(command[0])
    digest = hashlib.blake2b(digest_size=12)
    for source in sorted(folder.glob("*.[ch]")):
        digest.update(repr((source.name, source.read_bytes())).encode())
    digest.update(repr((command, state.st_size, state.st_mtime_ns)).encode())
    return digest.hexdigest()
