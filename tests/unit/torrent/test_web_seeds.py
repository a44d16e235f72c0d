"""When HTTP copies are taken up anew."""

from __future__ import annotations

from swarm.torrent.web_seeds import WebSeedRenewal

URL = "http://127.0.0.1:1/resolve/"


def due_times(renewal: WebSeedRenewal, until_s: float, useful_bytes: int = 0) -> list[float]:
    return [now for now in range(int(until_s)) if renewal.is_due(float(now), useful_bytes, True)]


def test_the_pauses_double_up_to_a_minute() -> None:
    renewal = WebSeedRenewal((URL,), 4.0)
    assert due_times(renewal, 300) == [5, 13, 29, 61, 121, 181, 241]


def test_a_busy_server_is_left_alone_for_up_to_five_minutes() -> None:
    renewal = WebSeedRenewal((URL,), 4.0)
    assert not renewal.is_due(0.0, 0, True)
    renewal.failed(429)
    assert due_times(renewal, 1200) == [4, 12, 28, 60, 124, 252, 508, 808, 1108]


def test_progress_or_nothing_to_fetch_starts_over() -> None:
    renewal = WebSeedRenewal((URL,), 4.0)
    assert not renewal.is_due(0.0, 0, True)
    assert not renewal.is_due(1.0, 0, True)
    assert not renewal.is_due(4.9, 10, True), "something came"
    assert not renewal.is_due(5.0, 10, True)
    assert not renewal.is_due(8.9, 10, True)
    assert renewal.is_due(9.0, 10, True)
    assert not renewal.is_due(100.0, 10, False), "nothing is missing"


def test_a_liar_is_not_asked_again_and_others_are() -> None:
    renewal = WebSeedRenewal((URL, "http://127.0.0.1:2/"), 4.0)
    renewal.banned("http://127.0.0.1:2")
    assert renewal.urls == (URL,)
    renewal.banned("http://127.0.0.1:9/where-it-redirected-to")
    assert renewal.urls == ()
    assert due_times(renewal, 100) == []
