"""`swarm keys`, `release sign`, `verify`, `list`, and what `inspect` and `seed` say of papers and licences."""

from __future__ import annotations

import json
import shutil
import stat
import struct
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from swarm.cli.keys import keys
from swarm.cli.release import release
from swarm.embedded import release_folder
from swarm.errors import BadArgument, CorruptRelease, LicenceNotAccepted, VerificationError
from swarm.identity import NodeKey
from swarm.torrent import Magnet, magnet_of


@pytest.fixture(autouse=True)
def keys_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SWARM_KEYS_DIR", str(tmp_path / "keys"))
    return tmp_path / "keys"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(release_folder(), tmp_path / "pip"))


def run(command: Any, *arguments: str | Path) -> str:
    return CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False).stdout.strip()


def run_json(command: Any, *arguments: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(command, *arguments, "--json"))
    return found


def test_keys_are_made_shown_listed_and_trusted(keys_dir: Path) -> None:
    own = run(keys, "new", "me")
    assert stat.S_IMODE((keys_dir / "me.key").stat().st_mode) == 0o600
    other = NodeKey.generate().node_id
    run(keys, "trust", other, "alice")
    assert run(keys, "show", "me") == own
    assert run_json(keys, "show", "alice")["id"] == other
    listed = run_json(keys, "list")["keys"]
    assert [(key["name"], key["id"], key["kind"]) for key in listed] == [
        ("me", own, "own"),
        ("alice", other, "trusted"),
    ]


def test_a_signed_folder_verifies_and_says_by_whom(folder: Path) -> None:
    own = run(keys, "new", "me")
    said = run_json(release, "sign", folder, "--key", "me", "--version", "1.0")
    assert (said["signer"], said["n_tensors"]) == (own, 189)
    before = (folder / "manifest.json").read_bytes()
    assert run_json(release, "verify", folder, "--publisher", "me") == {
        "schema": "swarm.release.verify/1",
        "signer": own,
        "licence": "apache-2.0",
        "n_files": 8,
        "n_tensors": 189,
        "total_bytes": sum(path.stat().st_size for path in folder.iterdir() if not path.name.startswith("manifest.")),
    }
    words, checked = run(release, "verify", folder).splitlines()
    assert words.startswith("signed by own key me (") and words.endswith("; licence: apache-2.0")
    assert (
        checked == "the signature holds, every byte of 8 files (23.3 MB) is as signed, and so is where 189 tensors lie"
    )
    inspected = run_json(release, "inspect", folder)
    assert inspected["signer"] == own
    assert inspected["signature"].startswith("signed by own key me (")
    made = CliRunner().invoke(release, ["create", str(folder)], catch_exceptions=False)
    assert "signed by own key me (" in made.stderr
    run(release, "sign", folder, "--key", "me", "--version", "1.0")
    assert (folder / "manifest.json").read_bytes() == before, "the same release gives the same manifest"


def test_verify_finds_one_changed_bit_of_a_weight(folder: Path) -> None:
    run(keys, "new", "me")
    run(release, "sign", folder, "--key", "me")
    shard = folder / "model-00002-of-00003.safetensors"
    data = bytearray(shard.read_bytes())
    data[-100] ^= 1
    shard.write_bytes(data)
    with pytest.raises(VerificationError, match="model-00002-of-00003"):
        run(release, "verify", folder)


def test_a_release_changed_since_it_was_signed_is_not_published(folder: Path) -> None:
    run(keys, "new", "me")
    run(release, "sign", folder, "--key", "me")
    (folder / "NOTES.md").write_text("one more")
    for arguments in (("create", folder), ("seed", folder), ("inspect", folder)):
        with pytest.raises(CorruptRelease, match=r"does not list 'NOTES\.md'"):
            run(release, *arguments)


def test_an_unsigned_folder_says_so(folder: Path) -> None:
    assert run_json(release, "inspect", folder)["signature"] == "unsigned"
    with pytest.raises(BadArgument, match="not signed"):
        run(release, "verify", folder)
    (folder / "manifest.json").write_text('{"name": "a web page\'s manifest"}')
    assert run_json(release, "inspect", folder)["signature"] == "unsigned"


def test_a_manifest_of_somebody_elses_is_not_written_over(folder: Path) -> None:
    run(keys, "new", "me")
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(BadArgument, match="move it away"):
        run(release, "sign", folder, "--key", "me")
    assert (folder / "manifest.json").read_text() == "{}"


def test_publishers_that_are_nobody_are_refused(folder: Path) -> None:
    with pytest.raises(BadArgument, match="no key is trusted yet"):
        run(release, "verify", folder, "--publisher", "trusted")
    with pytest.raises(BadArgument, match="swarm keys list"):
        run(release, "verify", folder, "--publisher", "nobody")


def test_a_symbolic_link_cannot_be_signed(folder: Path, tmp_path: Path) -> None:
    run(keys, "new", "me")
    (tmp_path / "elsewhere").write_text("secret")
    (folder / "NOTES.md").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadArgument, match="symbolic link"):
        run(release, "sign", folder, "--key", "me")
    assert not (folder / "manifest.json").exists()


def test_seeding_a_research_release_wants_a_word(folder: Path) -> None:
    (folder / "README.md").write_text("---\nlicense: other\nlicense_name: mnpl\n---\n")
    with pytest.raises(LicenceNotAccepted, match="--accept-licence mnpl"):
        run(release, "seed", folder, "--network", "loopback")


def test_values_that_are_no_numbers_are_found(folder: Path) -> None:
    run(release, "inspect", folder, "--check-values")
    shard = folder / "model-00003-of-00003.safetensors"
    data = bytearray(shard.read_bytes())
    data[-4:-2] = struct.pack("<H", 0x7FC0)
    shard.write_bytes(data)
    with pytest.raises(CorruptRelease, match="holds 1 NaN or infinite value, so"):
        run(release, "inspect", folder, "--check-values")


def test_the_catalogue_is_listed_and_links_are_mended() -> None:
    listed = run_json(release, "list")["releases"]
    assert [row["name"] for row in listed if not row["runnable"]] == ["pixtral-12b-240910"]
    for row in listed:
        assert run(release, "list", row["name"]) == row["magnet"]
        assert Magnet.parse(row["magnet"]).infohash == row["infohash"]
        assert str(magnet_of(row["name"].upper())) == row["magnet"]
    pasted = (
        "magnet:?xt=urn:btih:9238b09245d0d8cd915be09927769d5f7584c1c9&dn=mixtral-8x22b&tr=udp%3A%2F%http://2Fopen.demonii"
        ".com%3A1337%2Fannounce&tr=http%3A%2F%https://t.co/OdtBUsbeV5%3A1337%2Fannounce&x.pe=127.0.0.1:7000"
    )
    mended = Magnet.parse(run(release, "list", pasted))
    assert mended.trackers == magnet_of("mixtral-8x22b").trackers
    assert len(mended.peers) == 1
    with pytest.raises(BadArgument, match="names: mistral-7B"):
        run(release, "list", "gpt")


def test_a_wrong_setting_is_said_before_a_folder_is_hashed(folder: Path) -> None:
    with pytest.raises(BadArgument, match="--bittorrent utp: write on or off"):
        run(release, "seed", folder, "--network", "loopback", "--bittorrent", "utp=maybe")
    assert not folder.with_name(f"{folder.name}.torrent").exists()
