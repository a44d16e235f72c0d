"""Small situations and a question about each: the answer stands in the text, or is one step away from it."""

import random
from collections.abc import Callable

from .documents import Chat, Turn
from .names import several
from .spelling import words

THINGS = words("kite boat lamp book ball drum hat map key coin rope bell shell stone cup basket")
COLOURS = words("red blue green yellow black white brown pink grey purple")
PLACES = words("garden kitchen harbour attic cellar library market tower barn bakery")
FOODS = words("plums soup pears cheese honey figs bread nuts cake beans")
COUNTED = words("plums shells coins pears nuts stones figs beads")
_COMPARED = (
    ("taller", "tallest"),
    ("older", "oldest"),
    ("faster", "fastest"),
    ("stronger", "strongest"),
    ("younger", "youngest"),
)

Situation = tuple[str, str, str, str]  # key, text, question, answer


def _owning(rng: random.Random) -> Situation:
    n = 2 + int(rng.random() * 2)
    people = several(rng, n)
    things, colours = rng.sample(THINGS, n), rng.sample(COLOURS, n)
    text = " ".join(f"{people[i]} has a {colours[i]} {things[i]}." for i in range(n))
    i, luck = int(rng.random() * n), rng.random()
    person, thing, colour = people[i], things[i], colours[i]
    if luck < 0.4:
        question, answer = f"Who has the {thing}?", f"{person} has the {thing}."
    elif luck < 0.7:
        question, answer = f"What colour is the {thing}?", f"The {thing} is {colour}."
    else:
        question, answer = f"What does {person} have?", f"{person} has a {colour} {thing}."
    return f"own|{people}|{colours}|{things}|{question}", text, question, answer


def _staying(rng: random.Random) -> Situation:
    n = 2 + int(rng.random() * 2)
    people, places = several(rng, n), rng.sample(PLACES, n)
    text = " ".join(f"{people[i]} is in the {places[i]}." for i in range(n))
    i = int(rng.random() * n)
    question = f"Where is {people[i]}?" if rng.random() < 0.5 else f"Who is in the {places[i]}?"
    return f"stay|{people}|{places}|{question}", text, question, f"{people[i]} is in the {places[i]}."


def _moving(rng: random.Random) -> Situation:
    mover, other = several(rng, 2)
    thing, second = rng.sample(THINGS, 2)
    before, after, elsewhere = rng.sample(PLACES, 3)
    text = (
        f"The {thing} is in the {before}. The {second} is in the {elsewhere}. {mover} takes the {thing} to the {after}."
    )
    key = f"move|{mover}|{thing}|{second}|{before}|{after}|{elsewhere}"
    luck = rng.random()
    if luck < 0.5:
        question, answer = f"Where is the {thing} now?", f"The {thing} is in the {after}."
    elif luck < 0.75:
        question, answer = f"Where is the {second} now?", f"The {second} is in the {elsewhere}."
    else:
        text = f"{mover} is in the {before}. {other} is in the {elsewhere}. {mover} goes to the {after}."
        question, answer = f"Where is {mover} now?", f"{mover} is in the {after}."
        key = f"go|{mover}|{other}|{before}|{after}|{elsewhere}"
    return f"{key}|{question}", text, question, answer


def _giving(rng: random.Random) -> Situation:
    giver, taker = several(rng, 2)
    thing, kept = rng.sample(THINGS, 2)
    text = f"{giver} has a {thing}. {taker} has a {kept}. {giver} gives the {thing} to {taker}."
    key = f"give|{giver}|{taker}|{thing}|{kept}"
    luck = rng.random()
    if luck < 0.5:
        question, answer = f"Who has the {thing} now?", f"{taker} has the {thing}."
    elif luck < 0.75:
        question, answer = f"Who gave the {thing} away?", f"{giver} gave the {thing} away."
    else:
        question, answer = f"Who has the {kept}?", f"{taker} has the {kept}."
    return f"{key}|{question}", text, question, answer


def _liking(rng: random.Random) -> Situation:
    n = 2 + int(rng.random() * 2)
    people, foods = several(rng, n), rng.sample(FOODS, n)
    text = " ".join(f"{people[i]} likes {foods[i]}." for i in range(n))
    i = int(rng.random() * n)
    question = f"What does {people[i]} like?" if rng.random() < 0.5 else f"Who likes {foods[i]}?"
    return f"like|{people}|{foods}|{question}", text, question, f"{people[i]} likes {foods[i]}."


def _counting(rng: random.Random) -> Situation:
    person, other = several(rng, 2)
    things = rng.choice(COUNTED)
    first, second = 2 + int(rng.random() * 8), 1 + int(rng.random() * 9)
    luck = rng.random()
    if luck < 0.6 or second >= first - 1:
        change, total = f"{person} finds {second} more.", first + second
    else:
        change, total = f"{person} gives {second} to {other}.", first - second
    text = f"{person} has {first} {things}. {change}"
    question = f"How many {things} does {person} have now?"
    return f"count|{person}|{things}|{first}|{change}", text, question, f"{person} has {total} {things}."


def _comparing(rng: random.Random) -> Situation:
    first, second, third = several(rng, 3)
    more, most = rng.choice(_COMPARED)
    sentences = [f"{first} is {more} than {second}.", f"{second} is {more} than {third}."]
    if rng.random() < 0.5:
        sentences.reverse()
    question, answer = f"Who is the {most}?", f"{first} is the {most}."
    return f"compare|{first}|{second}|{third}|{more}", " ".join(sentences), question, answer


_SITUATIONS: tuple[Callable[[random.Random], Situation], ...] = (
    _owning,
    _owning,
    _staying,
    _moving,
    _moving,
    _giving,
    _liking,
    _counting,
    _comparing,
)


def make_reading(rng: random.Random) -> Chat:
    """A situation of two to four sentences and one question about it; the answer is one sentence."""
    key, text, question, answer = rng.choice(_SITUATIONS)(rng)
    if rng.random() < 0.1:
        question = question[:-1]
    return Chat("reading", key, (Turn(f"{text} {question}", answer),))
