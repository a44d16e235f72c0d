"""Sizes, rates, and times for people; progress where there is no terminal."""

from __future__ import annotations

import json

import pytest

from swarm.cli import console


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (999_999, "1.00 MB"),
        (14_483_464_192, "14.5 GB"),
        (93_405_585_408, "93.4 GB"),
        (117_440_512, "117 MB"),
        (2e18, "2000 PB"),
    ],
)
def test_sizes(size_bytes: float, text: str) -> None:
    assert console.format_size(size_bytes) == text


def test_rates_and_counts() -> None:
    assert console.format_rate(12_345_678) == "12.3 MB/s"
    assert console.format_count(46_702_792_704) == "46.7 B"
    assert console.format_count(7_241_732_096) == "7.24 B"
    assert console.format_count(12) == "12"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.00042, "0.4 ms"),
        (0.85, "850 ms"),
        (0.9996, "1.0 s"),
        (12.34, "12.3 s"),
        (59.97, "1 min 00 s"),
        (245, "4 min 05 s"),
        (7380, "2 h 03 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert console.format_duration(seconds) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(0, 10, "0%"), (1, 1000, "<1%"), (999, 1000, "99%"), (10, 10, "100%"), (11, 10, "100%"), (1, 0, "-")],
)
def test_percent_is_never_rounded_up_to_done_or_down_to_nothing(part: float, whole: float, text: str) -> None:
    assert console.format_percent(part, whole) == text


def test_json_is_one_line_with_the_schema_first(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_event("swarm.x/1", "token", text="é\n")
    out = capsys.readouterr().out
    assert out == '{"schema": "swarm.x/1", "event": "token", "text": "é\\n"}\n'
    assert json.loads(out)["text"] == "é\n"


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_progress_without_a_terminal_is_a_line_every_few_seconds_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with console.ProgressMeter("fetching", 1000, interval_s=5, clock=clock) as meter:
        for second in range(13):
            clock.now_s = float(second)
            meter.update(second * 10, "3 peers")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "fetching: 50 B of 1.00 kB (5%), 3 peers\nfetching: 100 B of 1.00 kB (10%), 3 peers\n"


def test_progress_may_learn_its_total_late(capsys: pytest.CaptureFixture[str]) -> None:
    with console.ProgressMeter("hashing", interval_s=0, show=lambda n: f"{n:.0f} pieces") as meter:
        meter.update(1)
        meter.update(2, total=4)
    assert capsys.readouterr().err == "hashing: 1 pieces\nhashing: 2 pieces of 4 pieces (50%)\n"


def test_a_status_line_says_nothing_twice(capsys: pytest.CaptureFixture[str]) -> None:
    with console.status_line() as show:
        for text in ("a", "a", "b"):
            show(text)
    assert capsys.readouterr().err == "a\nb\n"
