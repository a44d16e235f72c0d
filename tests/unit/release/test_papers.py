"""What a release says about itself: manifest, licence, catalogue; and values that are no numbers."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest

from swarm.errors import CorruptRelease, LicenceNotAccepted, LocalProtocolError
from swarm.release import FileDigest, Manifest, check_licence, find_entry, hollow_release, manifest_of
from swarm.release.canonical_json import canonical_bytes
from swarm.release.catalogue import CATALOGUE
from swarm.release.configs import args_from_params
from swarm.release.licences import canonical_licence, find_terms
from swarm.release.values import count_unusable, find_unusable
from swarm.torrent import Magnet


@pytest.fixture
def signed(tiny_params: dict[str, Any]) -> tuple[Any, Manifest, dict[str, int]]:
    release = hollow_release(args_from_params(tiny_params), "hf", shard_bytes=20_000)
    layout = release.layout()
    files = {path: FileDigest(size, "ab" * 32) for path, size in release.sizes.items()}
    tensors = dict.fromkeys(layout.tensors, "cd" * 32)
    manifest = manifest_of(layout, "tiny", files, tensors, version="2", base_model="mistralai/x")
    return release, manifest, dict(release.sizes)


def test_canonical_json_has_one_spelling() -> None:
    """RFC 8785, 3.2.3: keys in the order of UTF-16 code units, where U+1F600 comes before U+FB33."""
    value = {"€": 1, "\r": 2, "\ufb33": 3, "1": 4, "😀": 5, "\x80": 6, "ö": [True, None, 'a"\\\n\x01é']}
    assert canonical_bytes(value).decode() == (
        '{"\\r":2,"1":4,"\x80":6,"ö":[true,null,"a\\"\\\\\\n\\u0001é"],"€":1,"😀":5,"\ufb33":3}'
    )


@pytest.mark.parametrize("value", [1.5, math.nan, 1 << 53, {1: 2}, "\ud800", {"\ud800": 1}, b"x"])
def test_what_has_several_spellings_is_not_written(value: object) -> None:
    with pytest.raises((LocalProtocolError, UnicodeEncodeError)):
        canonical_bytes(value)


def test_a_manifest_survives_its_bytes(signed: Any) -> None:
    release, manifest, sizes = signed
    found = Manifest.parse(manifest.to_bytes())
    assert found == manifest
    found.check_files(sizes, "it")
    found.check_layout(release.layout())
    assert {tensor.sha256 for tensor in found.bind(release.layout()).tensors.values()} == {"cd" * 32}


def test_other_files_than_the_signed_ones_are_refused(signed: Any) -> None:
    _, manifest, sizes = signed
    with pytest.raises(CorruptRelease, match=r"config\.json.* has 1"):
        manifest.check_files({**sizes, "config.json": 1}, "it")
    with pytest.raises(CorruptRelease, match=r"does not list 'extra\.bin'"):
        manifest.check_files({**sizes, "extra.bin": 1}, "it")
    del sizes["tokenizer.model"]
    with pytest.raises(CorruptRelease, match="has none"):
        manifest.check_files(sizes, "it")
    manifest.check_files({**sizes, "tokenizer.model": 493_443, "manifest.json": 5, "manifest.sig": 5}, "it")


def test_heads_that_say_something_else_are_refused(signed: Any, tiny_params: dict[str, Any]) -> None:
    _, manifest, _ = signed
    args = args_from_params(tiny_params)
    with pytest.raises(CorruptRelease, match="another model"):
        manifest.check_layout(hollow_release(args, "mistral").layout())
    with pytest.raises(CorruptRelease, match="another dtype or place"):
        manifest.check_layout(hollow_release(args, "hf", shard_bytes=40_000).layout())
    wider = args_from_params({**tiny_params, "hidden_dim": 32})
    with pytest.raises(CorruptRelease, match="the shape"):
        manifest.check_layout(hollow_release(wider, "hf", shard_bytes=20_000).layout())
    deeper = args_from_params({**tiny_params, "n_layers": 4})
    with pytest.raises(CorruptRelease, match="another model"):
        manifest.check_layout(hollow_release(deeper, "hf", shard_bytes=20_000).layout())


@pytest.mark.parametrize("licence", [None, "apache-2.0", "Apache 2.0", "mit", "cc-by-sa-4.0", "modified-mit"])
def test_open_and_unstated_licences_ask_for_nothing(licence: str | None) -> None:
    check_licence(licence, (), "it")


OTHERS = (
    "cc-by-nc-4.0", "CC-BY-NC-SA-4.0", "cc-by-nc", "cc-by-nc-nd-3.0", "gemma", "other", "llama3.1", "research only!",
    "something-of-their-own-" * 8, "ö\x1b[31m",
)  # fmt: skip


@pytest.mark.parametrize("licence", ["mrl", "MNPL", "Mistral AI Research Licence", "mnpl-0.1", *OTHERS])
def test_others_want_a_word_and_say_their_terms_in_two_lines(licence: str) -> None:
    name = canonical_licence(licence)
    with pytest.raises(LicenceNotAccepted) as caught:
        check_licence(licence, {"apache-2.0"} | ({"mrl", "mnpl"} - {name}), "it")
    lines = caught.value.message.splitlines()
    assert [line.strip() for line in lines[1:3]] == list(find_terms(name).terms)
    assert lines[3].endswith(f"--accept-licence {name}")
    assert caught.value.message.replace("\n", "").isprintable()
    check_licence(licence, {name.upper()}, "it")


def test_the_catalogue_names_each_release_once() -> None:
    assert len({entry.infohash for entry in CATALOGUE}) == len({entry.name.lower() for entry in CATALOGUE}) == 5
    for entry in CATALOGUE:
        magnet = Magnet(entry.infohash, None, entry.name, entry.trackers)
        assert Magnet.parse(str(magnet)) == magnet
        assert magnet.warnings == ()
        assert find_entry(entry.name.upper()) is find_entry(entry.infohash) is entry
    assert find_entry("mixtral") is None


POSTED = {
    "5546272da9065eddeb6fcd7ffddeef5b75be79a7": "dn=mixtral-8x7b-32kseqlen&tr=udp%3A%2F%http://2Fopentracker.i2p.rocks"
    "%3A6969%2Fannounce&tr=http%3A%2F%http://2Ftracker.openbittorrent.com%3A80%2Fannounce",
    "9238b09245d0d8cd915be09927769d5f7584c1c9": "dn=mixtral-8x22b&tr=udp%3A%2F%http://2Fopen.demonii.com%3A1337%2F"
    "announce&tr=http%3A%2F%http://2Ftracker.opentrackr.org%3A1337%2Fannounce",
}


@pytest.mark.parametrize("infohash", POSTED)
def test_the_mangled_links_that_go_round_mend_to_the_catalogues(infohash: str) -> None:
    entry = find_entry(infohash)
    assert entry is not None
    pasted = Magnet.parse(f"magnet:?xt=urn:btih:{infohash}&{POSTED[infohash]}")
    assert (pasted.name, pasted.trackers) == (entry.name, entry.trackers)


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_values_that_are_no_numbers_are_counted(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[dtype]
    finite = torch.tensor(
        [0.0, -0.0, 1.0, torch.finfo(kind).max, torch.finfo(kind).min, torch.finfo(kind).tiny], dtype=kind
    )
    broken = torch.tensor([math.nan, math.inf, -math.inf, 1.0], dtype=kind)
    assert count_unusable(finite.view(torch.uint8).numpy().tobytes(), dtype) == 0
    assert count_unusable(broken.view(torch.uint8).numpy().tobytes(), dtype) == 3


def test_the_tensor_that_holds_a_nan_is_named(signed: Any) -> None:
    release, _, _ = signed
    layout = release.layout()
    bad = layout.tensors["layers.1.feed_forward.experts.2.w2.weight"]
    release._parts[bad.file][bad.offset + 6] = struct.pack("<H", 0x7FC0)
    found = {name: n for name, n, _ in find_unusable(layout, release.read) if n}
    assert found == {"layers.1.feed_forward.experts.2.w2.weight": 1}
