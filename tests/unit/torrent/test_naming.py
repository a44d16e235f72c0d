"""What stands for a torrent: links, names and infohashes of the catalogue, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.errors import MagnetError
from swarm.release.catalogue import CATALOGUE, CatalogueEntry
from swarm.torrent import Magnet, magnet_of

LINK = f"magnet:?xt=urn:btih:{'1' * 40}&dn=some"


@pytest.mark.parametrize("text", [LINK, f" '{LINK}' ", LINK.replace("magnet", "MAGNET")])
def test_a_link_is_itself_in_whatever_state_it_was_pasted(text: str) -> None:
    assert magnet_of(text) == Magnet.parse(LINK)


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.name)
def test_a_name_in_any_case_and_an_infohash_stand_for_the_link(entry: CatalogueEntry) -> None:
    assert magnet_of(entry.name) == magnet_of(entry.name.upper()) == magnet_of(entry.infohash)
    assert Magnet.parse(str(magnet_of(entry.name))) == magnet_of(entry.infohash)


@pytest.mark.parametrize(
    ("text", "mend"),
    [
        ("mixtral-8x7b", "did you mean mixtral-8x7b-32kseqlen?"),
        ("mistral-small-3", "did you mean Mistral-Small-3-Instruct?"),
        ("mixtrall-8x22b", "did you mean mixtral-8x22b"),
        ("gpt", "names: mistral-7B-v0.1, "),
        ("", "names: mistral-7B-v0.1, "),
        ("https://example.invalid/model", "not a magnet link"),
    ],
)
def test_other_texts_are_refused_with_what_may_have_been_meant(text: str, mend: str) -> None:
    with pytest.raises(MagnetError) as caught:
        magnet_of(text)
    assert mend in caught.value.message


@pytest.mark.parametrize(
    ("text", "mend"),
    [
        ("ab" * 20, f"an infohash; write magnet:?xt=urn:btih:{'ab' * 20}"),
        (f" {'AB' * 20} ", f"an infohash; write magnet:?xt=urn:btih:{'ab' * 20}"),
        ("ab" * 32, f"a v2 infohash; write magnet:?xt=urn:btmh:1220{'ab' * 32}"),
        ("here", "a folder; seed it with `swarm release seed here`, and take the link that this prints"),
        ("away/some.torrent", "a torrent file; seed it with `swarm release seed away/some.torrent`, and take the link"),
    ],
)
def test_what_has_a_link_is_answered_with_how_to_come_by_it(
    text: str, mend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    with pytest.raises(MagnetError) as caught:
        magnet_of(text)
    assert mend in caught.value.message
    assert "names:" not in caught.value.message
    if "write " in mend:
        assert Magnet.parse(mend.partition("write ")[2])
