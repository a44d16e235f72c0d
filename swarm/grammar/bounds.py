"""What a schema may ask of the compiler. llguidance's fuel bounds the states of its lexers, and not all of its work:
divisors and long lists of alternatives take it seconds to minutes, and gigabytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from swarm.errors import BadArgument

MAX_DIVISOR = 20_000
"""Of multipleOf, in units of its last decimal: a state is made for each remainder."""

MAX_DIVISORS_SUM = 50_000
"""Of all uses of multipleOf together."""

MAX_SCALE = 10**9
"""Of the smallest decimal place in any of them."""

MAX_ALTERNATIVES = 1000
"""Properties of one object, or alternatives of one choice between schemas: work grows with the square."""

_LISTS = ("properties", "patternProperties", "anyOf", "oneOf", "allOf", "prefixItems")


def check_bounds(schemas: list[Any], what: str) -> None:
    """Raises: BadArgument for schemas that take too long to compile together."""
    divisors: list[Decimal] = []
    for parent in _objects(schemas):
        for name in _LISTS:
            n = len(parent[name]) if isinstance(parent.get(name), dict | list) else 0
            if n > MAX_ALTERNATIVES:
                raise BadArgument(f"{what} has {name} with {n} entries; {MAX_ALTERNATIVES} are the most: split it")
        divisor = parent.get("multipleOf")
        if isinstance(divisor, int | float) and not isinstance(divisor, bool) and 0 < divisor <= MAX_DIVISOR:
            divisors.append(Decimal(str(divisor)))
        elif isinstance(divisor, int | float):
            raise BadArgument(f"{what} has multipleOf {divisor!s:.40}; it must be above 0 and at most {MAX_DIVISOR}")
    scale = 10 ** max((max(0, -int(d.as_tuple().exponent)) for d in divisors), default=0)
    units = [int(divisor * scale) for divisor in divisors]
    # Those that hold of one value at a time are one divisor: their least common multiple.
    if scale > MAX_SCALE or math.lcm(*set(units)) > MAX_DIVISOR or sum(units) > MAX_DIVISORS_SUM:
        raise BadArgument(
            f"{what} has values of multipleOf that take too long to tell apart; use fewer, smaller or rounder ones"
        )


def _objects(values: list[Any]) -> Iterator[dict[str, Any]]:
    """Every JSON object within, whether a schema or not."""
    left: list[Any] = list(values)
    while left:
        value = left.pop()
        if isinstance(value, dict):
            yield value
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)
