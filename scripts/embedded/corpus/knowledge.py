"""Common knowledge that is true everywhere: capitals, opposites, colours, sounds, legs, plurals, days and months."""

import random
from functools import cache

from .documents import Chat, Fact, Turn
from .spelling import draw_lead, led, pairs, vary, words

CAPITALS = pairs(
    """France:Paris Germany:Berlin Spain:Madrid Italy:Rome England:London Ireland:Dublin Portugal:Lisbon
    Austria:Vienna Greece:Athens Norway:Oslo Sweden:Stockholm Finland:Helsinki Denmark:Copenhagen Poland:Warsaw
    Hungary:Budapest Belgium:Brussels Japan:Tokyo China:Beijing India:New_Delhi Egypt:Cairo Kenya:Nairobi
    Canada:Ottawa Cuba:Havana Peru:Lima Chile:Santiago Russia:Moscow Turkey:Ankara Iceland:Reykjavik
    the_United_States:Washington the_Netherlands:Amsterdam Switzerland:Bern Scotland:Edinburgh Ukraine:Kyiv
    Romania:Bucharest Mexico:Mexico_City Brazil:Brasilia Argentina:Buenos_Aires Australia:Canberra
    Thailand:Bangkok Vietnam:Hanoi South_Korea:Seoul Morocco:Rabat"""
)
OPPOSITES = pairs(
    """big:small hot:cold day:night up:down open:closed wet:dry fast:slow old:new light:dark happy:sad high:low
    left:right long:short full:empty hard:soft loud:quiet early:late rich:poor strong:weak clean:dirty near:far
    sweet:sour thick:thin true:false"""
)
COLOURS = (
    ("the sky", "blue"),
    ("grass", "green"),
    ("snow", "white"),
    ("blood", "red"),
    ("coal", "black"),
    ("a banana", "yellow"),
    ("a lemon", "yellow"),
    ("a strawberry", "red"),
    ("milk", "white"),
    ("an elephant", "grey"),
    ("a carrot", "orange"),
    ("chocolate", "brown"),
    ("a frog", "green"),
    ("a flamingo", "pink"),
)
SOUNDS = pairs(
    """cat:meows dog:barks cow:moos duck:quacks sheep:bleats lion:roars owl:hoots bee:buzzes snake:hisses wolf:howls
    pig:oinks frog:croaks"""
)
LEGS = (
    ("cat", 4),
    ("dog", 4),
    ("spider", 8),
    ("bird", 2),
    ("ant", 6),
    ("horse", 4),
    ("bee", 6),
    ("hen", 2),
    ("snake", 0),
    ("fish", 0),
    ("cow", 4),
    ("person", 2),
)
PLURALS = pairs(
    """cat:cats dog:dogs mouse:mice child:children foot:feet tooth:teeth goose:geese man:men woman:women box:boxes
    leaf:leaves wolf:wolves city:cities baby:babies sheep:sheep house:houses knife:knives bus:buses tree:trees
    ox:oxen"""
)
DAYS = words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = words("January February March April May June July August September October November December")
COUNTS = (
    ("days", "a week", "A week has 7 days."),
    ("months", "a year", "A year has 12 months."),
    ("hours", "a day", "A day has 24 hours."),
    ("minutes", "an hour", "An hour has 60 minutes."),
    ("seconds", "a minute", "A minute has 60 seconds."),
    ("wheels", "a bicycle", "A bicycle has 2 wheels."),
    ("sides", "a triangle", "A triangle has 3 sides."),
    ("sides", "a square", "A square has 4 sides."),
    ("letters", "the alphabet", "The alphabet has 26 letters."),
    ("fingers", "a hand", "A hand has 5 fingers."),
)


def _pairs() -> list[Fact]:
    facts: list[Fact] = []
    wordings: tuple[str, ...]
    for land, city in CAPITALS:
        is_capital = f"The capital of {land} is {city}."
        wordings = (
            f"What is the capital of {land}?",
            f"Which city is the capital of {land}?",
            f"Name the capital of {land}.",
            f"What is {land}'{'' if land.endswith('s') else 's'} capital?",
            f"Do you know the capital of {land}?",
        )
        facts.append((f"capital|{land}", wordings, is_capital))
        wordings = (
            f"{city} is the capital of which country?",
            f"Which country has {city} as its capital?",
            f"Of which country is {city} the capital?",
            f"Where is {city}?",
        )
        facts.append((f"country|{city}", wordings, f"{city} is the capital of {land}."))
    for first, second in OPPOSITES:
        for word, other in ((first, second), (second, first)):
            wordings = (
                f"What is the opposite of {word}?",
                f"Name the opposite of {word}.",
                f"What is the contrary of {word}?",
                f"Which word is the opposite of {word}?",
                f"The opposite of {word}?",
            )
            facts.append((f"opposite|{word}", wordings, f"The opposite of {word} is {other}."))
    for single, plural in PLURALS:
        wordings = (
            f"What is the plural of {single}?",
            f"Name the plural of {single}.",
            f"One {single}, two what?",
            f"How do you write more than one {single}?",
            f"The plural of {single}?",
        )
        facts.append((f"plural|{single}", wordings, f"The plural of {single} is {plural}."))
    return facts


def _things() -> list[Fact]:
    facts: list[Fact] = []
    for thing, colour in COLOURS:
        wordings = (
            f"What colour is {thing}?",
            f"What color is {thing}?",
            f"Which colour does {thing} have?",
            f"What is the colour of {thing}?",
        )
        facts.append((f"colour|{thing}", wordings, f"{thing[0].upper()}{thing[1:]} is {colour}."))
    for animal, sound in SOUNDS:
        an_animal = f"an {animal}" if animal[0] in "aeiou" else f"a {animal}"
        wordings = (
            f"What sound does {an_animal} make?",
            f"What does {an_animal} say?",
            f"Which sound does {an_animal} make?",
            f"How does {an_animal} sound?",
        )
        facts.append((f"sound|{animal}", wordings, f"{an_animal[0].upper()}{an_animal[1:]} {sound}."))
        wordings = (f"Which animal {sound}?", f"What animal {sound}?", f"Who {sound}?", f"Name an animal that {sound}.")
        facts.append((f"who|{sound}", wordings, f"{an_animal[0].upper()}{an_animal[1:]} {sound}."))
    for animal, n_legs in LEGS:
        an_animal = f"an {animal}" if animal[0] in "aeiou" else f"a {animal}"
        legs = "no legs" if n_legs == 0 else f"{n_legs} legs"
        wordings = (
            f"How many legs does {an_animal} have?",
            f"How many legs has {an_animal}?",
            f"What number of legs does {an_animal} have?",
            f"Count the legs of {an_animal}.",
        )
        facts.append((f"legs|{animal}", wordings, f"{an_animal[0].upper()}{an_animal[1:]} has {legs}."))
    for what, whole, answer in COUNTS:
        wordings = (
            f"How many {what} does {whole} have?",
            f"How many {what} are in {whole}?",
            f"How many {what} has {whole}?",
            f"What is the number of {what} in {whole}?",
        )
        facts.append((f"count|{what}|{whole}", wordings, answer))
    return facts


def _calendar() -> list[Fact]:
    facts: list[Fact] = []
    for unit, names in (("day", DAYS), ("month", MONTHS)):
        for i, name in enumerate(names):
            after, before = names[(i + 1) % len(names)], names[i - 1]
            wordings = (
                f"What comes after {name}?",
                f"Which {unit} comes after {name}?",
                f"Which {unit} follows {name}?",
                f"What is the {unit} after {name}?",
            )
            facts.append((f"after|{name}", wordings, f"After {name} comes {after}."))
            wordings = (
                f"What comes before {name}?",
                f"Which {unit} comes before {name}?",
                f"What is the {unit} before {name}?",
                f"Name the {unit} before {name}.",
            )
            facts.append((f"before|{name}", wordings, f"Before {name} comes {before}."))
    return facts


@cache
def facts() -> tuple[Fact, ...]:
    """Every fact, in a fixed order."""
    return (*_pairs(), *_things(), *_calendar())


def make_knowledge(rng: random.Random) -> Chat:
    """A question that any child can answer, answered with a whole sentence."""
    fact, wordings, answer = rng.choice(facts())
    wording = int(rng.random() * len(wordings))
    lead = draw_lead(rng, wordings[wording], 0.15)
    return Chat("knowledge", f"{fact}|{wording}|{lead}", (Turn(vary(rng, led(lead, wordings[wording])), answer),))
