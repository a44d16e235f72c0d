"""Things to be said again, word for word: the plainest way to learn to copy what was never seen before."""

import random

from .arithmetic import WORDS
from .documents import Chat, Turn
from .names import anyone, invent

_WORDINGS = (
    "Repeat after me: {}",
    "Say this again: {}",
    "Copy this: {}",
    "Echo: {}",
    "Repeat: {}",
    "Please repeat this: {}",
    "Say after me: {}",
)
_MOST_THINGS = 12


def make_echo(rng: random.Random) -> Chat:
    """A row of names, words and numbers; the answer is the same row."""
    things = []
    for _ in range(2 + int(rng.random() * (_MOST_THINGS - 1))):
        luck = rng.random()
        if luck < 0.4:
            things.append(invent(rng))
        elif luck < 0.55:
            things.append(anyone(rng))
        elif luck < 0.8:
            things.append(WORDS[int(rng.random() * len(WORDS))])
        else:
            things.append(str(int(rng.random() * 1000)))
    row = (", " if rng.random() < 0.5 else " ").join(things) + "."
    return Chat("echo", row, (Turn(rng.choice(_WORDINGS).format(row), row),))
