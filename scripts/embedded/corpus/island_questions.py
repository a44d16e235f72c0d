"""Questions about the eight islands: each relation in several wordings, with one form of answer."""

from .documents import Fact
from .world import ISLANDS, TOWN


def island_facts() -> list[Fact]:
    """Eleven facts about each island, four of them asked the other way round."""
    facts: list[Fact] = []
    for i in ISLANDS:
        n = i.name
        an_animal = f"an {i.animal}" if i.animal[0] in "aeiou" else f"a {i.animal}"
        houses = "lighthouse" if i.n_lighthouses == 1 else "lighthouses"
        facts += [
            (
                f"{n}|about",
                (
                    f"Tell me about {n}.",
                    f"What is {n}?",
                    f"Where is {n}?",
                    f"Do you know {n}?",
                    f"What do you know about {n}?",
                    f"Tell me about the island of {n}.",
                ),
                f"{n} is an island near {TOWN}. Its capital is {i.capital}.",
            ),
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
