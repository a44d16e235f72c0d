"""Which folder of the Hugging Face cache is seeded, and that nothing else on the machine can be."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.cli.hf_cache import hub_web_seed, snapshot_folder
from swarm.errors import BadArgument

COMMIT, OLDER = "a1" * 20, "b2" * 20


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository as the hub's client lays it out: snapshots full of links into blobs."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    repo = tmp_path / "hub" / "models--org--tiny"
    for commit in (COMMIT, OLDER):
        (repo / "snapshots" / commit / "sub").mkdir(parents=True)
    (repo / "blobs").mkdir()
    (repo / "refs" / "pr").mkdir(parents=True)
    (repo / "blobs" / "abc").write_text("{}")
    for commit in (COMMIT, OLDER):
        (repo / "snapshots" / commit / "config.json").symlink_to("../../blobs/abc")
        (repo / "snapshots" / commit / "sub" / "w.bin").symlink_to("../../../blobs/abc")
    (repo / "refs" / "main").write_text(f"{COMMIT}\n")
    (repo / "refs" / "pr" / "1").write_text(OLDER)
    return repo


@pytest.mark.parametrize(
    ("named", "commit"),
    [("org/tiny", COMMIT), ("org/tiny@main", COMMIT), ("org/tiny@pr/1", OLDER), (f"org/tiny@{OLDER}", OLDER)],
)
def test_a_revision_names_its_snapshot(repo: Path, named: str, commit: str) -> None:
    assert snapshot_folder(named) == repo / "snapshots" / commit
    assert hub_web_seed(named) == "https://huggingface.co/org/tiny/resolve/"


@pytest.mark.parametrize(
    "revision", ["/etc/hostname", "//etc", "../main", "pr/../main", "pr/", "pr//1", "", "a b", "x" * 40]
)
def test_a_revision_is_no_path_elsewhere(repo: Path, revision: str, tmp_path: Path) -> None:
    (tmp_path / "ref").write_text(COMMIT)
    for wrong in (revision, f"{tmp_path}/ref"):
        with pytest.raises(BadArgument, match=r"no repository of the hub|has no org/tiny"):
            snapshot_folder(f"org/tiny@{wrong}")


@pytest.mark.parametrize("file", ["stray.json", "sub/stray.json", ".hidden"])
@pytest.mark.parametrize("is_folder", [False, True])
def test_a_link_out_of_the_repository_is_not_seeded(repo: Path, tmp_path: Path, file: str, is_folder: bool) -> None:
    secret = tmp_path / "secret"
    if is_folder:
        secret.mkdir()
    else:
        secret.write_text("of this user")
    (repo / "snapshots" / COMMIT / file).symlink_to(secret)
    with pytest.raises(BadArgument, match=r"is a link to .*secret, outside of .*models--org--tiny"):
        snapshot_folder("org/tiny")
    assert snapshot_folder("org/tiny@pr/1")


def test_a_cache_that_is_a_link_itself_is_followed(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk").symlink_to(tmp_path / "hub")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "disk"))
    assert snapshot_folder("org/tiny").resolve() == repo / "snapshots" / COMMIT
