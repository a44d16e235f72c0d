"""What must be remembered of a generation in order to go on with it on other nodes, or in another process."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from swarm.errors import BadArgument
from swarm.grammar import Grammar
from swarm.sampling import SamplingParams
from swarm.terms import Infohash, Profile, is_infohash

FORMAT = "swarm-journal-v1"
CONSTRAINED_FORMAT = "swarm-journal-v2"
"""The same with a grammar, which a reader of the first would drop in silence."""


@dataclass(slots=True)
class Journal:
    """The prompt, the parameters, the grammar, the seed, the profile and every token emitted: about 4 bytes a token.

    continues: the answer goes on in the middle of the prompt's text (a completion), rather than beginning anew (chat).

    emit() comes before the caller sees the token. With a path, each token is a line of the file, written through to the
    operating system: the process may die at any moment.
    """

    release: Infohash
    prompt_ids: tuple[int, ...]
    params: SamplingParams
    seed: int
    continues: bool = True
    grammar: Grammar | None = None
    profile: Profile | None = None
    emitted: list[tuple[int, float]] = field(default_factory=list)  # (token id, logprob)
    _file: TextIO | None = None

    @classmethod
    def create(
        cls, release: Infohash, prompt_ids: Sequence[int], params: SamplingParams, path: Path | None, *,
        continues: bool, grammar: Grammar | None = None,
    ) -> Journal:  # fmt: skip
        """A new journal; its seed is the parameters' or drawn at random. Raises: BadArgument when path holds something
        already.
        """
        seed = params.seed if params.seed is not None else int.from_bytes(os.urandom(7), "big")
        journal = cls(release, tuple(prompt_ids), params, seed, continues, grammar)
        if path is not None:
            try:
                journal._file = _open_new(path)
                _lock(journal._file, path)
            except OSError as error:
                raise BadArgument(
                    f"cannot start journal {path}: {error.strerror}; resume it, or name a new file"
                ) from error
        return journal

    @classmethod
    def load(cls, path: Path) -> Journal:
        """The journal in path, opened for going on. A last line that was cut short is dropped. Raises: BadArgument."""
        try:
            file = path.open("r+", encoding="utf-8", newline="")
        except OSError as error:
            raise BadArgument(f"cannot read journal {path}: {error.strerror}") from error
        try:
            _lock(file, path)
            return cls._read(file, path)
        except BaseException:
            file.close()
            raise

    @classmethod
    def _read(cls, file: TextIO, path: Path) -> Journal:
        data = file.buffer.read()
        whole = data[: data.rfind(b"\n") + 1]
        try:
            head, *lines = [json.loads(line) for line in whole.splitlines()]
            if head["format"] not in (FORMAT, CONSTRAINED_FORMAT) or not is_infohash(head["release"]):
                raise ValueError("not a journal of this version")
            grammar = Grammar.from_json(head["grammar"]) if head["format"] == CONSTRAINED_FORMAT else None
            params = SamplingParams(**{**head["params"], "stop": tuple(head["params"]["stop"])})
            profile = Profile.parse(head["profile"])
            prompt_ids = tuple(_id(i) for i in head["prompt_ids"])
            emitted = [(_id(line["id"]), float(line["logprob"])) for line in lines]
            release, seed, continues = Infohash(head["release"]), int(head["seed"]), bool(head["continues"])
            journal = cls(release, prompt_ids, params, seed, continues, grammar, profile, emitted)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadArgument(
                f"{path} is not a journal that can be resumed ({error}); start the generation anew"
            ) from error
        file.truncate(len(whole))
        file.seek(0, os.SEEK_END)
        journal._file = file
        return journal

    def settle_profile(self, profile: Profile) -> None:
        """Fix the profile at the first route: from now on only its nodes may continue."""
        if self.profile is not None:
            return
        self.profile = profile
        params: dict[str, Any] = dataclasses.asdict(self.params)
        head = {
            "format": FORMAT if self.grammar is None else CONSTRAINED_FORMAT,
            "release": self.release,
            "profile": str(profile),
            "seed": self.seed,
            "continues": self.continues,
            "params": params,
            "prompt_ids": self.prompt_ids,
        }
        self._write(head if self.grammar is None else {**head, "grammar": self.grammar.to_json()})

    def emit(self, token_id: int, logprob: float) -> None:
        self.emitted.append((token_id, logprob))
        self._write({"id": token_id, "logprob": logprob})

    @property
    def ids(self) -> list[int]:
        """The prompt and what was emitted: what a replacement stage must be fed."""
        return [*self.prompt_ids, *(token_id for token_id, _ in self.emitted)]

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, line: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()


def _lock(file: TextIO, path: Path) -> None:
    """One process writes a journal: two would mix their tokens. The lock ends with the file. Raises: BadArgument."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BadArgument(f"another process is writing journal {path}; wait for its end, or name a new file") from None


def _open_new(path: Path) -> TextIO:
    """Raises: FileExistsError, but not for an empty file: a generation that found no route leaves one."""
    try:
        return path.open("x", encoding="utf-8")
    except FileExistsError:
        if not path.is_file() or path.stat().st_size:
            raise
    return path.open("a", encoding="utf-8")


def _id(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is not a token id")
    return value
