"""The pattern of a date is the calendar's, day by day, and stands in for the format wherever a schema may have it."""

from __future__ import annotations

import datetime
import re

from swarm.grammar.dates import PATTERNS, with_exact_dates

DATE = re.compile(PATTERNS["date"])


def test_every_day_of_the_calendar_and_no_other_is_a_date() -> None:
    for year in (0, 1, 4, 10, 99, 100, 400, 1000, 1900, 2000, 2023, 2024, 2100, 9999):
        for month in range(14):
            for day in range(33):
                text = f"{year:04}-{month:02}-{day:02}"
                try:
                    datetime.date(year, month, day)
                except ValueError:
                    assert not DATE.search(text), text
                else:
                    assert DATE.search(text), text
    assert sum(bool(DATE.search(f"{year:04}-02-29")) for year in range(10_000)) == 2424  # 97 in 400 years, but for 0


def test_a_moment_is_what_the_standard_library_reads() -> None:
    moment = re.compile(PATTERNS["date-time"])
    for text in ("2024-02-29T00:00:00Z", "2023-12-31T23:59:59.123456+05:30", "0001-01-01T12:00:00-23:59"):
        assert moment.search(text)
        datetime.datetime.fromisoformat(text)
    for text in ("2023-02-29T00:00:00Z", "2023-02-28T24:00:00Z", "2023-02-28T00:00:60Z", "2023-02-28T00:00:00"):
        assert not moment.search(text)


def test_only_a_format_becomes_a_pattern() -> None:
    date = {"type": "string", "format": "date"}
    exact = {"type": "string", "pattern": PATTERNS["date"]}
    untouched = {"properties": {"format": {"const": date}}, "enum": [date], "default": date, "required": ["format"]}
    assert with_exact_dates(untouched) == untouched
    assert with_exact_dates({"format": "uuid", "items": True}) == {"format": "uuid", "items": True}
    assert with_exact_dates({"properties": {"const": date}, "anyOf": [date]}) == {
        "properties": {"const": exact},
        "anyOf": [exact],
    }
    both = with_exact_dates({**date, "pattern": "^2"})
    assert both == {"allOf": [{"type": "string", "pattern": "^2"}, {"pattern": PATTERNS["date"]}]}
