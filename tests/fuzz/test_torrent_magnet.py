"""Invariant: any text parses to a Magnet whose canonical text parses to an equal one, or raises MagnetError."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import MagnetError
from swarm.torrent import Magnet

V1 = "208b101a0f51514ecf285885a8b0f6fb1a1e4d7d"

_topics = st.sampled_from([f"xt=urn:btih:{V1}", f"xt=urn:btmh:1220{V1}{V1[:24]}", "xt=urn:btih:", "xt=urn:sha1:a"])
_bits = st.sampled_from(
    [
        "tr=",
        "ws=",
        "x.pe=",
        "dn=",
        "udp:",
        "http:",
        "//",
        "/",
        "%2F",
        "%http://2F",
        "[::1]",
        ":80",
        "a.b",
        "%",
        "@",
        "?",
    ]
)
_parameters = st.one_of(_topics, st.lists(st.one_of(_bits, st.text(max_size=8)), max_size=8).map("".join))
_links = st.lists(_parameters, max_size=8).map(lambda parameters: "magnet:?" + "&".join(parameters))


def check(text: str) -> None:
    try:
        magnet = Magnet.parse(text)
    except MagnetError:
        return
    again = Magnet.parse(str(magnet))
    assert again == magnet
    assert str(again) == str(magnet)
    assert not any("left out" in warning or "repaired" in warning for warning in again.warnings)


@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    check(text)


@given(st.text(max_size=200).map(lambda tail: f"magnet:?xt=urn:btih:{V1}&{tail}"))
def test_any_tail_on_a_good_link(text: str) -> None:
    check(text)


@given(_links)
def test_links_of_broken_parts(text: str) -> None:
    check(text)
