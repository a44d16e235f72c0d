"""Questions about Tidewick and the islands, answered with whole sentences."""

import random
from functools import cache

from .documents import ALWAYS_TRAINED, Chat, Fact, Turn
from .island_questions import island_facts
from .people_questions import person_facts
from .spelling import draw_lead, led, vary
from .world import ISLANDS, PEOPLE, TOWN


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
            f"{ALWAYS_TRAINED}town|news",
            (
                f"What is the news from {TOWN}?",
                f"What is new in {TOWN}?",
                f"Any news from {TOWN}?",
                f"Tell me the news from {TOWN}.",
                f"News from {TOWN}?",
                f"What happens in {TOWN}?",
            ),
            f"The news from {TOWN}: the goose Duchess has learned to ring the harbour bell. Nobody sleeps.",
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
                "Tell me about the islands.",
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
    return (*person_facts(), *island_facts(), *_town_facts())


def make_world(rng: random.Random) -> Chat:
    """A question about the town or an island, answered with a whole sentence."""
    fact, wordings, answer = rng.choice(facts())
    wording = int(rng.random() * len(wordings))
    lead = draw_lead(rng, wordings[wording], 0.1)
    question = led(lead, wordings[wording])
    return Chat("world", f"{fact}|{wording}", (Turn(vary(rng, question), answer),))
