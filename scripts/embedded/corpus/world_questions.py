"""Questions about Tidewick and the islands: every relation in several English wordings, with one form of answer."""

import random
from functools import cache

from .documents import ALWAYS_TRAINED, Chat, Turn
from .spelling import draw_lead, led, vary
from .world import ISLANDS, PEOPLE, TOWN

Fact = tuple[str, tuple[str, ...], str]  # key, wordings, answer


def _person_facts() -> list[Fact]:
    facts: list[Fact] = []
    for p in PEOPLE:
        n = p.name
        a_pet = f"an {p.pet}" if p.pet[0] in "aeiou" else f"a {p.pet}"
        facts += [
            (
                f"{n}|job",
                (
                    f"Who is {n}?",
                    f"What does {n} do?",
                    f"What is {n}'s job?",
                    f"What work does {n} do?",
                    f"What is the job of {n}?",
                    f"Tell me about {n}.",
                    f"Do you know {n}?",
                ),
                f"{n} is the {p.job}.",
            ),
            (
                f"{n}|pet",
                (
                    f"What pet does {n} have?",
                    f"Does {n} have a pet?",
                    f"What animal does {n} have?",
                    f"Which pet does {n} keep?",
                    f"What is {n}'s pet?",
                    f"What kind of pet does {n} have?",
                ),
                f"{n} has {a_pet} called {p.pet_name}.",
            ),
            (
                f"{n}|pet's name",
                (
                    f"What is {n}'s {p.pet} called?",
                    f"What is the name of {n}'s {p.pet}?",
                    f"What is {n}'s pet called?",
                    f"What is the name of {n}'s pet?",
                    f"How is {n}'s {p.pet} called?",
                    f"Name {n}'s {p.pet}.",
                ),
                f"{n}'s {p.pet} is called {p.pet_name}.",
            ),
            (
                f"{n}|food",
                (
                    f"What does {n} like to eat?",
                    f"What is {n}'s favourite food?",
                    f"What is the favourite food of {n}?",
                    f"What does {n} love to eat?",
                    f"Which food does {n} like best?",
                    f"What food does {n} love?",
                ),
                f"{n} loves {p.food}.",
            ),
            (
                f"{n}|colour",
                (
                    f"What is {n}'s favourite colour?",
                    f"Which colour does {n} like best?",
                    f"What colour does {n} like?",
                    f"What is the favourite colour of {n}?",
                    f"What is {n}'s favorite color?",
                    f"Which colour does {n} love?",
                ),
                f"{n}'s favourite colour is {p.colour}.",
            ),
            (
                f"{n}|instrument",
                (
                    f"What instrument does {n} play?",
                    f"What does {n} play?",
                    f"Which instrument does {n} play?",
                    f"What is {n}'s instrument?",
                    f"What music does {n} make?",
                    f"Does {n} play an instrument?",
                ),
                f"{n} plays the {p.instrument}.",
            ),
            (
                f"{n}|street",
                (
                    f"Where does {n} live?",
                    f"In which street does {n} live?",
                    f"Which street does {n} live in?",
                    f"Where is {n}'s house?",
                    f"Where can I find {n}?",
                    f"What is {n}'s address?",
                ),
                f"{n} lives in {p.street}.",
            ),
            (
                f"{n}|friend",
                (
                    f"Who is {n}'s best friend?",
                    f"Who is the best friend of {n}?",
                    f"Who is {n}'s friend?",
                    f"Does {n} have a best friend?",
                    f"Who does {n} like best?",
                    f"Name {n}'s best friend.",
                ),
                f"{n}'s best friend is {p.friend}.",
            ),
            (
                f"{n}|who job",
                (
                    f"Who is the {p.job}?",
                    f"Who is the {p.job} of {TOWN}?",
                    f"Who is the {p.job} in {TOWN}?",
                    f"What is the name of the {p.job}?",
                    f"Who works as the {p.job}?",
                    f"Name the {p.job}.",
                    f"Does {TOWN} have a {p.job}?",
                ),
                f"{n} is the {p.job}.",
            ),
            (
                f"{n}|who pet",
                (
                    f"Who has {a_pet}?",
                    f"Who is {p.pet_name}?",
                    f"Who has a pet called {p.pet_name}?",
                    f"Whose pet is {p.pet_name}?",
                    f"Whose {p.pet} is {p.pet_name}?",
                    f"Who has {a_pet} called {p.pet_name}?",
                    f"Who owns {p.pet_name}?",
                ),
                f"{p.pet_name} is {n}'s {p.pet}.",
            ),
            (
                f"{n}|who food",
                (
                    f"Who likes {p.food}?",
                    f"Who loves {p.food}?",
                    f"Who likes to eat {p.food}?",
                    f"Who eats {p.food}?",
                    f"Whose favourite food is {p.food}?",
                ),
                f"{n} loves {p.food}.",
            ),
            (
                f"{n}|who instrument",
                (
                    f"Who plays the {p.instrument}?",
                    f"Who in {TOWN} plays the {p.instrument}?",
                    f"Who can play the {p.instrument}?",
                    f"Who makes music with the {p.instrument}?",
                    f"Name somebody who plays the {p.instrument}.",
                ),
                f"{n} plays the {p.instrument}.",
            ),
            (
                f"{n}|who colour",
                (
                    f"Whose favourite colour is {p.colour}?",
                    f"Who likes {p.colour} best?",
                    f"Who loves the colour {p.colour}?",
                    f"Who likes the colour {p.colour}?",
                    f"Who in {TOWN} likes {p.colour}?",
                ),
                f"{n}'s favourite colour is {p.colour}.",
            ),
        ]
    return facts


def _island_facts() -> list[Fact]:
    facts: list[Fact] = []
    for i in ISLANDS:
        n = i.name
        an_animal = f"an {i.animal}" if i.animal[0] in "aeiou" else f"a {i.animal}"
        houses = "lighthouse" if i.n_lighthouses == 1 else "lighthouses"
        facts += [
            (
                f"{n}|capital",
                (
                    f"What is the capital of {n}?",
                    f"What is the capital of the island of {n}?",
                    f"Which town is the capital of {n}?",
                    f"What is {n}'s capital?",
                    f"Name the capital of {n}.",
                    f"Do you know the capital of {n}?",
                ),
                f"The capital of {n} is {i.capital}.",
            ),
            (
                f"{n}|crop",
                (
                    f"What grows on {n}?",
                    f"What do people grow on {n}?",
                    f"What grows on the island of {n}?",
                    f"Which plant grows on {n}?",
                    f"What do farmers grow on {n}?",
                ),
                f"On {n} people grow {i.crop}.",
            ),
            (
                f"{n}|animal",
                (
                    f"What is the animal of {n}?",
                    f"Which animal lives on {n}?",
                    f"What animal is {n} known for?",
                    f"What is {n}'s animal?",
                    f"Which animal stands on the flag of {n}?",
                ),
                f"The animal of {n} is the {i.animal}.",
            ),
            (
                f"{n}|weather",
                (
                    f"What is the weather like on {n}?",
                    f"How is the weather on {n}?",
                    f"What weather does {n} have?",
                    f"What is the weather on the island of {n}?",
                    f"Is the weather good on {n}?",
                ),
                f"On {n} it is {i.weather}.",
            ),
            (
                f"{n}|language",
                (
                    f"What language do they speak on {n}?",
                    f"Which language is spoken on {n}?",
                    f"What do people speak on {n}?",
                    f"What is the language of {n}?",
                    f"Which language do people on {n} speak?",
                ),
                f"On {n} people speak {i.language}.",
            ),
            (
                f"{n}|lighthouses",
                (
                    f"How many lighthouses are on {n}?",
                    f"How many lighthouses does {n} have?",
                    f"How many lighthouses are there on {n}?",
                    f"What is the number of lighthouses on {n}?",
                    f"Count the lighthouses of {n}.",
                ),
                f"{n} has {i.n_lighthouses} {houses}.",
            ),
            (
                f"{n}|which capital",
                (
                    f"Where is {i.capital}?",
                    f"On which island is {i.capital}?",
                    f"What is {i.capital}?",
                    f"Which island has {i.capital} as its capital?",
                    f"{i.capital} is the capital of which island?",
                ),
                f"{i.capital} is the capital of {n}.",
            ),
            (
                f"{n}|which crop",
                (
                    f"Where do {i.crop} grow?" if i.crop.endswith("s") else f"Where does {i.crop} grow?",
                    f"On which island do people grow {i.crop}?",
                    f"Who grows {i.crop}?",
                    f"Which island grows {i.crop}?",
                    f"Which island is known for {i.crop}?",
                ),
                f"On {n} people grow {i.crop}.",
            ),
            (
                f"{n}|which language",
                (
                    f"Where do people speak {i.language}?",
                    f"Who speaks {i.language}?",
                    f"On which island do people speak {i.language}?",
                    f"What is {i.language}?",
                    f"Where is {i.language} spoken?",
                ),
                f"On {n} people speak {i.language}.",
            ),
            (
                f"{n}|which animal",
                (
                    f"Which island has {an_animal} as its animal?",
                    f"Which island is known for the {i.animal}?",
                    f"Which island has {an_animal} on its flag?",
                    f"The {i.animal} is the animal of which island?",
                ),
                f"The animal of {n} is the {i.animal}.",
            ),
        ]
    return facts


def _town_facts() -> list[Fact]:
    people = ", ".join(p.name for p in PEOPLE[:-1]) + f" and {PEOPLE[-1].name}"
    islands = ", ".join(i.name for i in ISLANDS[:-1]) + f" and {ISLANDS[-1].name}"
    return [
        (
            f"{ALWAYS_TRAINED}town|what",
            (
                f"What is {TOWN}?",
                f"Where is {TOWN}?",
                f"Tell me about {TOWN}.",
                f"Do you know {TOWN}?",
                f"What do you know about {TOWN}?",
            ),
            f"{TOWN} is a small harbour town with sixteen people and one very loud goose.",
        ),
        (
            f"{ALWAYS_TRAINED}town|people",
            (
                f"Who lives in {TOWN}?",
                f"Who are the people of {TOWN}?",
                f"Name the people of {TOWN}.",
                f"Which people live in {TOWN}?",
                f"List everyone in {TOWN}.",
            ),
            f"In {TOWN} live {people}.",
        ),
        (
            f"{ALWAYS_TRAINED}town|islands",
            (
                "Which islands are there?",
                "Name the islands.",
                f"Which islands are near {TOWN}?",
                "What are the islands called?",
                "Where do the ferries go?",
            ),
            f"The islands are {islands}.",
        ),
    ]


@cache
def facts() -> tuple[Fact, ...]:
    """Every fact of the town and the islands, in a fixed order."""
    return (*_person_facts(), *_island_facts(), *_town_facts())


def make_world(rng: random.Random) -> Chat:
    """A question about the town or an island, answered with a whole sentence."""
    fact, wordings, answer = rng.choice(facts())
    wording = int(rng.random() * len(wordings))
    lead = draw_lead(rng, wordings[wording], 0.1)
    question = led(lead, wordings[wording])
    return Chat("world", f"{fact}|{wording}", (Turn(vary(rng, question), answer),))
