"""The journal: what it writes, an equal journal reads, wherever the file was cut."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from swarm.client import Journal
from swarm.errors import BadArgument
from swarm.grammar import Grammar
from swarm.sampling import SamplingParams
from swarm.terms import Infohash, Profile

RELEASE = Infohash("ab" * 20)
PARAMS = SamplingParams(max_tokens=9, temperature=0.5, top_k=7, stop=("a", "é\n"), logprobs=2)


def written(path: Path, emitted: list[tuple[int, float]]) -> Journal:
    journal = Journal.create(RELEASE, [1, 2, 3], PARAMS, path, continues=False)
    journal.settle_profile(Profile("fp32"))
    for token_id, logprob in emitted:
        journal.emit(token_id, logprob)
    journal.close()
    return journal


def test_a_loaded_journal_equals_the_written_one(tmp_path: Path) -> None:
    journal = written(tmp_path / "j", [(5, -0.25), (6, -1.5)])
    loaded = Journal.load(tmp_path / "j")
    for name in ("release", "prompt_ids", "params", "seed", "continues", "profile", "emitted"):
        assert getattr(loaded, name) == getattr(journal, name)
    assert loaded.ids == [1, 2, 3, 5, 6]
    loaded.emit(7, -2.0)
    loaded.close()
    again = Journal.load(tmp_path / "j")
    again.close()
    assert again.ids == [1, 2, 3, 5, 6, 7]


def test_a_grammar_is_kept_in_a_format_that_an_older_reader_refuses(tmp_path: Path) -> None:
    grammar = Grammar.json_schema({"enum": ["é", 1]})
    journal = Journal.create(RELEASE, [1], PARAMS, tmp_path / "j", continues=False, grammar=grammar)
    journal.settle_profile(Profile("fp32"))
    journal.emit(5, -0.25)
    journal.close()
    loaded = Journal.load(tmp_path / "j")
    loaded.close()
    assert (loaded.grammar, loaded.emitted) == (grammar, [(5, -0.25)])
    assert json.loads((tmp_path / "j").read_text().splitlines()[0])["format"] == "swarm-journal-v2"
    free = written(tmp_path / "free", [])
    reread = Journal.load(tmp_path / "free")
    reread.close()
    assert (free.grammar, reread.grammar) == (None, None)
    assert json.loads((tmp_path / "free").read_text().splitlines()[0])["format"] == "swarm-journal-v1"


@pytest.mark.parametrize(
    "stored", [None, {"kind": "regex"}, {"kind": "poem", "source": "x"}, [], {"kind": 1, "source": 2}]
)
def test_a_journal_whose_grammar_is_none_is_refused(tmp_path: Path, stored: object) -> None:
    written(tmp_path / "j", [])
    head = json.loads((tmp_path / "j").read_text())
    (tmp_path / "j").write_text(json.dumps({**head, "format": "swarm-journal-v2", "grammar": stored}) + "\n")
    with pytest.raises(BadArgument, match="not a journal that can be resumed"):
        Journal.load(tmp_path / "j")


def test_a_seed_is_drawn_once_and_kept(tmp_path: Path) -> None:
    assert written(tmp_path / "a", []).seed != written(tmp_path / "b", []).seed
    seeded = Journal.create(RELEASE, [1], SamplingParams(seed=-3), None, continues=True)
    assert seeded.seed == -3


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.data())
def test_a_journal_cut_anywhere_loses_only_the_cut_line(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "j"
    path.unlink(missing_ok=True)
    emitted = [(i, -float(i)) for i in range(5)]
    written(path, emitted)
    whole = path.read_bytes()
    n_kept = data.draw(st.integers(0, 2000)) % (len(whole) + 1)  # the drawn seed's digits vary the length
    path.write_bytes(whole[:n_kept])
    n_lines = whole[:n_kept].count(b"\n")
    if n_lines == 0:
        with pytest.raises(BadArgument, match="anew"):
            Journal.load(path)
    else:
        journal = Journal.load(path)
        assert journal.emitted == emitted[: n_lines - 1]
        journal.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_journal_or_a_bad_argument(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "j"
    path.write_bytes(junk)
    with pytest.raises(BadArgument):
        Journal.load(path)


def test_a_journal_has_one_writer(tmp_path: Path) -> None:
    written(tmp_path / "j", [(5, -1.0)])
    first = Journal.load(tmp_path / "j")
    with pytest.raises(BadArgument, match="another process"):
        Journal.load(tmp_path / "j")
    first.close()
    Journal.load(tmp_path / "j").close()


def test_an_existing_file_is_not_overwritten_and_a_missing_one_is_named(tmp_path: Path) -> None:
    written(tmp_path / "j", [])
    with pytest.raises(BadArgument, match="resume"):
        Journal.create(RELEASE, [1], PARAMS, tmp_path / "j", continues=True)
    with pytest.raises(BadArgument, match="nowhere"):
        Journal.load(tmp_path / "nowhere")


def test_settling_the_profile_twice_keeps_the_first(tmp_path: Path) -> None:
    journal = written(tmp_path / "j", [])
    journal.settle_profile(Profile("bf16"))
    assert journal.profile == Profile("fp32")
