"""Short Python functions as documents: written on request, or with a span cut out that must be filled in."""

import random
from functools import cache

from .documents import ALWAYS_TRAINED, Chat, Infill, Turn
from .functions import Function
from .list_functions import LIST_FUNCTIONS
from .number_functions import NUMBER_FUNCTIONS
from .spelling import vary
from .text_functions import TEXT_FUNCTIONS

FUNCTIONS = NUMBER_FUNCTIONS + LIST_FUNCTIONS + TEXT_FUNCTIONS

_UNNAMED = (
    "Write a Python function that {}.",
    "Write a function that {}.",
    "Give me a Python function that {}.",
    "I need a Python function that {}.",
)
_NAMED = (
    "Write a Python function {} that {}.",
    "Write a function {} that {}.",
    "Give me a Python function {} that {}.",
    "Define {}, a function that {}.",
)
_BY_KEY = {function.key: function for function in FUNCTIONS}


@cache
def _written(key: str, name_idx: int, parameter_idx: int, number: int) -> tuple[str, str, str, str, str]:
    """(signature, docstring line, body, what it does, checks) of a template with its names and number filled in."""
    function = _BY_KEY[key]
    x, y, z = (*function.parameters[parameter_idx], "", "", "")[:3]

    def fill(text: str, name: str = "") -> str:
        return text.format(f=name, x=x, y=y, z=z, c=number)

    name = fill(function.names[name_idx])
    signature = f"{name}({', '.join(function.parameters[parameter_idx])})"
    checks = "\n".join(f"assert {name}({fill(args)}) == {fill(value)}" for args, value in function.checks)
    return signature, f'    """{fill(function.promise)}"""\n', f"    {fill(function.body)}", fill(function.what), checks


def _draw(rng: random.Random) -> tuple[Function, int, int, int]:
    function = rng.choice(FUNCTIONS)
    number = rng.choice(function.numbers) if function.numbers else 0
    return function, int(rng.random() * len(function.names)), int(rng.random() * len(function.parameters)), number


def make_code(rng: random.Random) -> Chat:
    """A request for a function and the function, alone; the request settles its name, parameters and docstring."""
    function, name_idx, parameter_idx, number = _draw(rng)
    with_docstring = rng.random() < 0.5
    named = rng.random() < 0.7
    if not named:
        name_idx = parameter_idx = 0
    key = f"{function.key}|{name_idx}|{parameter_idx}|{number}"
    if not (name_idx or parameter_idx or number):
        key = ALWAYS_TRAINED + key  # a request that names nothing means these names, and nothing else teaches them
    signature, docstring, body, what, _ = _written(function.key, name_idx, parameter_idx, number)
    question = rng.choice(_NAMED).format(signature, what) if named else rng.choice(_UNNAMED).format(what)
    if with_docstring:
        question = f"{question[:-1]}, with a docstring."
    answer = f"def {signature}:\n{docstring if with_docstring else ''}{body}"
    return Chat("code", key, (Turn(vary(rng, question), answer),))


def code_checks(document: Chat) -> str:
    """The asserts that the function in a `code` document must pass.

    Raises: ValueError when the document is of another kind.
    """
    if document.kind != "code":
        raise ValueError(
            f"code_checks knows documents of the kind code, and this one is {document.kind}: pass a code Chat"
        )
    key, name_idx, parameter_idx, number = document.key.removeprefix(ALWAYS_TRAINED).split("|")
    return _written(key, int(name_idx), int(parameter_idx), int(number))[4]


def make_infill(rng: random.Random) -> Infill:
    """A function with an expression, a line, its body, or any run of characters of its body cut out."""
    function, name_idx, parameter_idx, number = _draw(rng)
    signature, docstring, body, _, checks = _written(function.key, name_idx, parameter_idx, number)
    # A docstring settles what a short name might leave open.
    with_docstring = rng.random() < 0.6
    head = f"def {signature}:\n{docstring if with_docstring else ''}"
    start, end = _cut(rng, body)
    key = f"{function.key}|{name_idx}|{parameter_idx}|{number}|{int(with_docstring)}|{start}|{end}"
    prefix, middle = head + body[:start], body[start:end]
    suffix = body[end:] + ("\n" if rng.random() < 0.3 else "")
    return Infill("infill", key, prefix, middle, suffix, checks)


def _cut(rng: random.Random, body: str) -> tuple[int, int]:
    """Where the cut-out span of a body starts and ends."""
    luck = rng.random()
    if luck < 1 / 3:
        start = 4 + int(rng.random() * (len(body) - 6))
        end = min(len(body), start + 2 + int(rng.random() * 24))
        while not body[start:end].strip():
            end += 1
        return start, end
    if luck < 0.5:
        return 4, len(body)
    lines = body.split("\n")
    i = int(rng.random() * len(lines))
    start = sum(len(line) + 1 for line in lines[:i])
    end = start + len(lines[i])
    start = end - len(lines[i].lstrip())
    if luck < 0.7:
        return start, end
    for opening in ("return ", " in ", "= "):
        at = body.find(opening, start, end)
        if at >= 0:
            stop = end - 1 if body[end - 1] == ":" else end
            return at + len(opening), stop
    return start, end
