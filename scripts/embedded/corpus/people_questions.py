"""Questions about the people of Tidewick: each relation in several wordings, with one form of answer."""

from .documents import Fact
from .world import PEOPLE, TOWN


def person_facts() -> list[Fact]:
    """Thirteen facts about each person, five of them asked the other way round."""
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
