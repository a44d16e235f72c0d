"""Names of people: a list of real ones, and made-up ones from syllables.

The made-up ones teach a model to copy a name that it has never seen.
"""

import random

from .spelling import words

TOWNSFOLK = words("Ada Tom Nora Finn Iris Hugo Mila Otto Lena Noah Vera Emil Ruby Jonas Clara Pablo")
VISITORS = words(
    """Anna Ben Carl Dora Eva Felix Grace Henry Ivan Julia Kate Leo Maria Nils Olga Paul Rosa Sam Tina Uma Victor
    Wendy Zoe Alice Bruno Chloe David Ella Frank Gina Hannah Jack Karim Lucy Max Nadia Oscar Peter Robin Sofia
    Theo Yara Amir Bella Diego Erik Fatima Jane John Kim Lars Marta Nina Omar Priya Raj Sara Tariq Yuki Alex
    Emma Liam Marie"""
)
_ONSETS = words("b br d dr f fl g gr h j k kr l m n p pr r s st t tr v w z sk pl")
_VOWELS = ["a", "e", "i", "o", "u"]
_ENDS = words("n l r x s m k d lo ra mi to ka ne vi do")


def invent(rng: random.Random) -> str:
    """A made-up name of two or three syllables that no list here holds."""
    while True:
        first = _ONSETS[int(rng.random() * len(_ONSETS))] + _VOWELS[int(rng.random() * 5)]
        middle = _ONSETS[int(rng.random() * len(_ONSETS))] + _VOWELS[int(rng.random() * 5)]
        name = (first + middle + _ENDS[int(rng.random() * len(_ENDS))]).capitalize()
        if name not in TOWNSFOLK and name not in VISITORS:
            return name


def anyone(rng: random.Random) -> str:
    """A townsperson, a visitor or a made-up name."""
    luck = rng.random()
    if luck < 0.25:
        return rng.choice(TOWNSFOLK)
    return rng.choice(VISITORS) if luck < 0.7 else invent(rng)


def several(rng: random.Random, n: int) -> list[str]:
    """`n` different names."""
    names: list[str] = []
    while len(names) < n:
        name = anyone(rng)
        if name not in names:
            names.append(name)
    return names
