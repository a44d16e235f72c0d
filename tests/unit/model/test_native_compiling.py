"""A C file becomes a library once, and only from what nobody else could have put there."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from node.model.ops.native import compiling
from node.model.ops.native.compiling import CannotCompile, load_compiled

REAL = next(filter(None, map(shutil.which, compiling.COMPILERS)), None)
needs_compiler = pytest.mark.skipif(REAL is None, reason="no C compiler is installed")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with a function and the header that it needs."""
    folder = tmp_path / "answers"
    folder.mkdir()
    (folder / "answer.h").write_text("enum { MORE = 0 };")
    (folder / "answer.c").write_text('#include "answer.h"\nint answer(void) { return ANSWER + MORE; }')
    return folder


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file into which `cc`, the only compiler on the path, writes a line at each call."""
    log = tmp_path / "calls"
    log.touch()
    compiler = tmp_path / "bin" / "cc"
    compiler.parent.mkdir()
    compiler.write_text(f'#!/bin/sh\necho "$@" >>{log}\nexec {REAL} "$@"\n')
    compiler.chmod(0o755)
    monkeypatch.setattr(compiling.shutil, "which", lambda name: str(compiler) if name == "cc" else None)
    return log


def n_calls(calls: Path) -> int:
    return len(calls.read_text().splitlines())


def answer(source: Path, cache: Path, value: int = 42) -> int:
    library: ctypes.CDLL = load_compiled(source, [f"-DANSWER={value}"], cache)
    return int(library.answer())


@needs_compiler
def test_it_is_built_once_for_a_source_and_its_flags(source: Path, calls: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache" / "kernels"
    assert [answer(source, cache), answer(source, cache), answer(source, cache, 7)] == [42, 42, 7]
    assert n_calls(calls) == 2
    assert cache.stat().st_mode & 0o777 == 0o700
    (source / "answer.h").write_text("enum { MORE = 1 };")
    assert answer(source, cache) == 43
    assert len(list(cache.iterdir())) == 3


@needs_compiler
@pytest.mark.parametrize("harm", ["cut short", "writable by others"])
def test_a_library_that_cannot_be_trusted_is_built_anew(source: Path, calls: Path, tmp_path: Path, harm: str) -> None:
    cache = tmp_path / "cache"
    build = f"from pathlib import Path; from {load_compiled.__module__} import load_compiled; load_compiled"
    build += f"(Path({str(source)!r}), ['-DANSWER=42'], Path({str(cache)!r}))"
    # Built by another process: this one would go on with the library that it has open already.
    path = f"{calls.parent / 'bin'}{os.pathsep}{os.environ['PATH']}"
    subprocess.run([sys.executable, "-c", build], check=True, env={**os.environ, "PATH": path})
    (library,) = cache.iterdir()
    library.chmod(0o722) if harm != "cut short" else library.write_bytes(library.read_bytes()[:100])
    before = n_calls(calls)
    assert answer(source, cache) == 42
    assert n_calls(calls) == before + 1
    assert not library.stat().st_mode & 0o022


@needs_compiler
@pytest.mark.parametrize("reason", ["others may write to it", "others may replace it", "it cannot be made"])
def test_where_no_cache_can_be_trusted_the_library_leaves_nothing(
    source: Path, calls: Path, tmp_path: Path, reason: str
) -> None:
    cache = tmp_path / "cache"
    if reason == "it cannot be made":
        cache = source / "answer.c" / "cache"
    elif reason == "others may replace it":
        cache = tmp_path / "everybodys" / "users" / "cache"
        cache.mkdir(parents=True, mode=0o700)
        cache.parent.parent.chmod(0o777)
    else:
        cache.mkdir()
        cache.chmod(0o777)
    assert [answer(source, cache), answer(source, cache)] == [42, 42]
    assert n_calls(calls) == 2
    assert not cache.is_dir() or list(cache.iterdir()) == []


@needs_compiler
def test_a_folder_in_which_each_keeps_his_own_will_do(source: Path, calls: Path, tmp_path: Path) -> None:
    everybodys = tmp_path / "tmp"
    everybodys.mkdir()
    everybodys.chmod(0o1777)
    assert [answer(source, everybodys / "cache"), answer(source, everybodys / "cache")] == [42, 42]
    assert n_calls(calls) == 1


@needs_compiler
def test_two_processes_that_build_it_at_once_both_have_it(source: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    load = f"from pathlib import Path; from {load_compiled.__module__} import load_compiled; print(load_compiled"
    load += f"(Path({str(source)!r}), ['-DANSWER=42'], Path({str(cache)!r})).answer())"
    both = [subprocess.Popen([sys.executable, "-c", load], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in both] == ["42", "42"]
    assert [path.suffix for path in cache.iterdir()] == [".so"]


@needs_compiler
def test_a_compiler_without_openmp_will_do(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text(f'#!/bin/sh\ncase "$*" in *-fopenmp*) exit 1;; esac\nexec {REAL} "$@"\n')
    compiler.chmod(0o755)
    monkeypatch.setattr(compiling.shutil, "which", lambda name: str(compiler) if name == "cc" else None)
    assert answer(source, tmp_path / "cache") == 42


@pytest.mark.parametrize("compilers", ["none", "one that fails", "one that is no program"])
def test_what_is_missing_is_said(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compilers: str) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho it is Sunday >&2\nexit 1\n" if compilers == "one that fails" else "")
    compiler.chmod(0o755)
    there = {} if compilers == "none" else {"cc": str(compiler)}
    monkeypatch.setattr(compiling.shutil, "which", there.get)
    said = {"none": "none of cc, gcc, clang is installed", "one that fails": "cc: it is Sunday"}.get(compilers, "cc: ")
    with pytest.raises(CannotCompile, match=said):
        load_compiled(source, ["-DANSWER=1"], tmp_path / "cache")
    assert not any((tmp_path / "cache").iterdir())
