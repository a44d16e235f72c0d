"""What a template of a short Python function is: one canonical body, what it does in words, and its checks.

In a template's texts {f} is the function's name, {x} {y} {z} its parameters, and {c} a number.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Function:
    """One template. `names`: what the function may be called; `parameters`: sets of parameter names;
    `numbers`: the constants that {c} may be; `checks`: (arguments, expected value) as Python."""

    key: str
    names: tuple[str, ...]
    parameters: tuple[tuple[str, ...], ...]
    what: str  # "adds {c} to {x}"
    promise: str  # "Return {x} plus {c}."
    body: str
    checks: tuple[tuple[str, str], ...]
    numbers: tuple[int, ...] = ()


# Sets of parameter names; the first is meant when a request names none.
NUMBER = (("x",), ("n",), ("number",), ("value",))
WHOLE = (("n",), ("x",), ("number",), ("value",))
PAIR = (("a", "b"), ("x", "y"), ("first", "second"))
ITEMS = (("items",), ("values",), ("numbers",))
TEXT = (("text",), ("word",), ("s",))
SMALL = tuple(range(2, 21))


def template(
    key: str,
    parameters: tuple[tuple[str, ...], ...],
    what: str,
    promise: str,
    body: str,
    *checks: tuple[str, str],
    names: str = "",
    numbers: tuple[int, ...] = (),
) -> Function:
    """A template whose function is called `key`, or one of the other `names`."""
    return Function(key, (key, *names.split()), parameters, what, promise, body, checks, numbers)
