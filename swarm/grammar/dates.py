"""Dates that are days. llguidance's own format of a date has a 29th of February in every year."""

from __future__ import annotations

from typing import Any

_YEAR = "(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)"  # there is no year 0
_LEAP_YEAR = "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_DAY = (
    "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    "|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
_DATE = f"(?:{_YEAR}-{_DAY}|{_LEAP_YEAR}-02-29)"
_HOUR = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_TIME = f"{_HOUR}:[0-5][0-9](?:\\.[0-9]{{1,9}})?(?:Z|[+-]{_HOUR})"

PATTERNS = {"date": f"^{_DATE}$", "date-time": f"^{_DATE}T{_TIME}$"}
"""By format. Source: RFC 3339, without its leap seconds."""

_MAPS_OF_SCHEMAS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_VALUES = ("const", "enum", "default", "examples")


def with_exact_dates(schema: Any) -> Any:
    """The schema with a pattern in place of each format of a date; anything that is no schema is left as it is.

    As a format does, a pattern concerns strings only.
    """
    if isinstance(schema, list):
        return [with_exact_dates(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    exact: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _MAPS_OF_SCHEMAS and isinstance(value, dict):
            exact[key] = {name: with_exact_dates(part) for name, part in value.items()}
        else:
            exact[key] = value if key in _VALUES else with_exact_dates(value)
    pattern = PATTERNS.get(exact["format"]) if isinstance(exact.get("format"), str) else None
    if pattern is None:
        return exact
    del exact["format"]
    if "pattern" in exact:
        return {"allOf": [exact, {"pattern": pattern}]}
    return {**exact, "pattern": pattern}
