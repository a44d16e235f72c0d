from __future__ import annotations

import base64

import pytest

from swarm.errors import MagnetError
from swarm.terms import Address
from swarm.torrent import Magnet

V1 = "208b101a0f51514ecf285885a8b0f6fb1a1e4d7d"
V2 = "bd5e4ab1c7b2bea984a5b8650b0a6b2ca550203a5bfb2b80d7a9237eb0c7f33f"

PUBLISHED = [
    (
        "magnet:?xt=urn:btih:208b101a0f51514ecf285885a8b0f6fb1a1e4d7d&dn=mistral-7B-v0.1"
        "&tr=udp%3A%2F%2Ftracker.opentrackr.org%3A1337%2Fannounce",
        "mistral-7B-v0.1",
        ("udp://tracker.opentrackr.org:1337/announce",),
    ),
    (
        "magnet:?xt=urn:btih:5546272da9065eddeb6fcd7ffddeef5b75be79a7&dn=mixtral-8x7b-32kseqlen"
        "&tr=udp%3A%2F%http://2Fopentracker.i2p.rocks%3A6969%2Fannounce"
        "&tr=http%3A%2F%http://2Ftracker.openbittorrent.com%3A80%2Fannounce",
        "mixtral-8x7b-32kseqlen",
        ("udp://opentracker.i2p.rocks:6969/announce", "http://tracker.openbittorrent.com:80/announce"),
    ),
    (
        "magnet:?xt=urn:btih:9238b09245d0d8cd915be09927769d5f7584c1c9&dn=mixtral-8x22b"
        "&tr=udp%3A%2F%https://t.co/uV4WVdtpwZ%3A1337%2Fannounce&tr=http%3A%2F%2Ftracker.opentrackr.org%3A1337%2Fannounce",
        "mixtral-8x22b",
        ("http://tracker.opentrackr.org:1337/announce",),
    ),
]


@pytest.mark.parametrize(("text", "name", "trackers"), PUBLISHED)
def test_published_links_parse_with_their_broken_trackers_mended_or_left_out(
    text: str, name: str, trackers: tuple[str, ...]
) -> None:
    magnet = Magnet.parse(text)
    assert magnet.infohash == text[20:60]
    assert magnet.name == name
    assert magnet.trackers == trackers
    assert bool(magnet.warnings) == ("%http" in text), "whatever was mended or left out is said"


def test_canonical_text_parses_to_an_equal_magnet() -> None:
    magnet = Magnet(
        V1,
        V2,
        "a name & more = #1",
        ("udp://t.example:1/announce", "http://[::1]:80/announce?key=a%26b"),
        ("http://w.example/files/",),
        (Address("127.0.0.1", 7000), Address("::1", 7001), Address("host.example", 1)),
    )
    assert Magnet.parse(str(magnet)) == magnet
    assert str(magnet).startswith(f"magnet:?xt=urn:btih:{V1}&xt=urn:btmh:1220{V2}&")


@pytest.mark.parametrize(
    "text",
    [
        f"magnet:?xt=urn:btih:{V1.upper()}",
        f"  MAGNET:?XT=URN:BTIH:{V1}  ",
        f"'magnet:?xt=urn:btih:{V1}'",
        f"<magnet:?dn=&amp;xt=urn:btih:{V1}>",
        f"magnet:?xt.1=urn:btih:{V1}&xt.2=urn:sha1:ABC",
        f"magnet:?xt=urn:btih:{V1[:20]}\n{V1[20:]}",
        f"magnet:?xt=urn%3Abtih%3A{V1}",
        f"magnet:?xt=urn:btih:{base64.b32encode(bytes.fromhex(V1)).decode()}",
        f"magnet:?xt=urn:btih:{V1}&xt=urn:btih:{V1}",
    ],
)
def test_the_same_torrent_however_it_was_pasted(text: str) -> None:
    assert Magnet.parse(text).infohash == V1


def test_v2_only_is_named_by_the_truncated_hash() -> None:
    magnet = Magnet.parse(f"magnet:?xt=urn:btmh:1220{V2}")
    assert magnet.v1 is None
    assert magnet.infohash == V2[:40]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not a magnet link"),
        (V1, "not a magnet link"),
        ("http://example.org/?xt=urn:btih:" + V1, "not a magnet link"),
        ("magnet:?dn=x", "no infohash"),
        ("magnet:?xt=urn:btih:" + V1[:-1], "copy the whole link"),
        ("magnet:?xt=urn:btih:" + V1 + "0", "copy the whole link"),
        ("magnet:?xt=urn:btmh:1220" + V2[:-2], "not a v2 infohash"),
        (f"magnet:?xt=urn:btih:{V1}&xt=urn:btih:{V1[::-1]}", "several torrents"),
        (f"magnet:?xt=urn:btih:{V1}&dn=" + "x" * 70_000, "refused"),
    ],
)
def test_what_names_no_torrent_is_refused_with_the_reason(text: str, says: str) -> None:
    with pytest.raises(MagnetError, match=says):
        Magnet.parse(text)


@pytest.mark.parametrize(
    "parameter",
    [
        "tr=udp%3A%2F%2Fno-port.example%2Fannounce",
        "tr=gopher%3A%2F%2Fx.example%2F",
        "tr=http%3A%2F%2F",
        "tr=%00%01",
        "tr=http://x.example:99999/announce",
        "x.pe=127.0.0.1",
        "x.pe=127.0.0.1:0",
        "x.pe=0.0.0.0:1",
        "x.pe=a b:1",
        "ws=file%3A%2F%2F%2Fetc%2Fpasswd",
    ],
)
def test_an_unusable_parameter_is_left_out_with_a_warning(parameter: str) -> None:
    magnet = Magnet.parse(f"magnet:?xt=urn:btih:{V1}&{parameter}")
    assert magnet.trackers == magnet.web_seeds == magnet.peers == ()
    assert len(magnet.warnings) == 1
    assert "left out" in magnet.warnings[0]


@pytest.mark.parametrize("rest", ["&dn=a", "&tr=http://t.example/announce", "&x.pe=127.0.0.1:1", "&x.pe=nowhere", ""])
def test_a_link_that_ends_with_its_hash_may_have_been_cut_by_a_shell(rest: str) -> None:
    hint = Magnet.parse(f"magnet:?xt=urn:btih:{V1}{rest}").cut_hint
    assert ("in quotes, 'magnet:?…'" in hint) == (not rest)


def test_a_lost_slash_is_restored() -> None:
    magnet = Magnet.parse(f"magnet:?xt=urn:btih:{V1}&tr=udp:/t.example:6969/announce")
    assert magnet.trackers == ("udp://t.example:6969/announce",)
    assert "repaired" in magnet.warnings[0]


def test_links_are_bounded() -> None:
    trackers = "".join(f"&tr=http://t{i}.example/announce" for i in range(400))
    assert len(Magnet.parse(f"magnet:?xt=urn:btih:{V1}{trackers}").trackers) == 256


def test_names_lose_their_control_characters() -> None:
    assert Magnet.parse(f"magnet:?xt=urn:btih:{V1}&dn=a%1b[31m%0Ab+c%E2%80%AE").name == "a[31mb c"
