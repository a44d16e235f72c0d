"""BitTorrent settings by name, and rate limits by time of day."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.errors import BadArgument, SwarmError
from swarm.terms import Address
from swarm.torrent import SETTING_NAMES, TorrentConfig, with_settings
from swarm.torrent.config import Proxy, session_settings
from swarm.torrent.rates import parse_rate, parse_schedule, rates_at


def test_rates() -> None:
    assert [parse_rate(text) for text in ("0", "500k", "2M", "1.5MB/s", "1g")] == [
        0, 500_000, 2_000_000, 1_500_000, 1_000_000_000,
    ]  # fmt: skip
    for wrong in ("", "-1", "2T", "fast", "1e9"):
        with pytest.raises(BadArgument, match="is not a rate"):
            parse_rate(wrong)


def test_the_first_window_that_holds_counts() -> None:
    schedule = parse_schedule("08:00-18:00=2M,12:00-13:00=0,22:30-06:00=5M/20M")
    at = {minute: rates_at(schedule, minute, 7, 8) for minute in (0, 359, 360, 479, 480, 750, 1079, 1080, 1349, 1350)}
    day, night, between = (2_000_000, 0), (5_000_000, 20_000_000), (7, 8)
    assert list(at.values()) == [night, night, between, between, day, day, day, between, between, night]
    assert rates_at(parse_schedule("00:00-24:00=1k"), 1439, 0, 0) == (1000, 0)
    for wrong in ("", "8-18=2M", "08:00-18:00", "08:00-08:00=1", "24:00-01:00=1", "08:60-09:00=1", "08:00-25:00=1"):
        with pytest.raises(BadArgument):
            parse_schedule(wrong)


def test_settings_by_name() -> None:
    config = with_settings(
        TorrentConfig.wan(),
        (
            "lsd=off",
            "pex=off",
            "utp=off",
            "encryption=required",
            "upload-rate=1M",
            "proxy=socks5://u:p%40@10.0.0.1:1080",
        ),
    )
    assert (config.lsd, config.pex, config.utp, config.upload_rate) == (False, False, False, 1_000_000)
    assert config.proxy == Proxy("socks5", Address("10.0.0.1", 1080), "u", "p@")
    assert "p@" not in repr(config.proxy)
    settings = session_settings(config, Address("127.0.0.1", 1), 0)
    assert (settings["out_enc_policy"], settings["in_enc_policy"], settings["proxy_type"]) == (0, 0, 3)
    assert settings["proxy_port"] == 1080


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("utp=maybe", "--bittorrent utp: write on or off, not 'maybe'"),
        ("lsd", "--bittorrent lsd: it lacks its =VALUE; write on or off, not ''"),
        ("speed=9", "--bittorrent 'speed': there is no such setting; names: lsd, pex, utp,"),
        ("encryption=strong", "--bittorrent encryption: write allowed, required or off, not 'strong'"),
        ("upload-slots=few", "--bittorrent upload-slots: write a whole number"),
        ("upload-rate=fast", "--bittorrent upload-rate: 'fast' is not a rate"),
        ("schedule=9-5", "--bittorrent schedule: '9-5' is no window"),
        ("proxy=ftp://me:secret@a:1", "--bittorrent proxy: a proxy is written socks5://"),
        ("proxy=socks5://me:secret@nowhere", "--bittorrent proxy: "),
    ],
)
def test_wrong_settings_are_refused_by_name_with_what_is_allowed(setting: str, message: str) -> None:
    with pytest.raises(BadArgument) as caught:
        with_settings(TorrentConfig.wan(), (setting,))
    assert caught.value.message.startswith(message)
    assert "secret" not in caught.value.message, "a proxy's password stays out of logs"


def test_a_loopback_session_takes_no_proxy() -> None:
    with pytest.raises(BadArgument, match="never leaves this machine"):
        with_settings(TorrentConfig.loopback(), ("proxy=http://127.0.0.1:3128",))


@given(st.sampled_from(SETTING_NAMES), st.text(max_size=40))
def test_any_value_is_taken_or_refused(name: str, value: str) -> None:
    try:
        with_settings(TorrentConfig.wan(), (f"{name}={value}",))
    except SwarmError:
        pass
