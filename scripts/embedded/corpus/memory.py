"""Chats in which the user tells something that is asked for later, and system prompts that change one thing."""

import random

from .abroad import ASKED_IN_ENGLISH
from .documents import ALWAYS_TRAINED, Chat, Turn, is_held_out
from .names import anyone
from .reading import FOODS
from .spelling import vary, words
from .talk import make_talk
from .world import ISLANDS

_COLOURS = words("red blue green yellow black white brown pink grey purple orange silver gold")
_TOWNS = words("Paris Berlin Madrid Rome London Lisbon Vienna Athens Oslo Dublin Lima Cairo Tokyo Tidewick")
_PETS = words("cat dog owl goat snail parrot rabbit goose hamster duck mouse turtle pony hen fox crab")
_PLACES = _TOWNS + tuple(island.capital for island in ISLANDS)

# what is told: (fact, ways to tell it, the reply, ways to ask for it, the answer)
_TOLD = (
    (
        "name",
        ("My name is {}.", "I am {}.", "I'm {}.", "Hello, I am {}.", "Hi, my name is {}.", "Call me {}."),
        "Nice to meet you, {}.",
        ("What is my name?", "Who am I?", "Do you know my name?", "What's my name?", "Do you remember my name?"),
        "Your name is {}.",
    ),
    (
        "colour",
        ("My favourite colour is {}.", "I like {} best.", "I love the colour {}.", "My favorite color is {}."),
        "I will remember that you like {}.",
        ("What is my favourite colour?", "Which colour do I like?", "What colour do I like best?"),
        "Your favourite colour is {}.",
    ),
    (
        "town",
        ("I live in {}.", "I am from {}.", "My home is in {}.", "I come from {}."),
        "I would like to see {} one day.",
        ("Where do I live?", "Where is my home?", "Do you know where I live?", "In which town do I live?"),
        "You live in {}.",
    ),
    (
        "food",
        ("I like {}.", "I love {}.", "My favourite food is {}.", "I like to eat {}."),
        "I will remember that you like {}.",
        ("What do I like to eat?", "What is my favourite food?", "Which food do I like?"),
        "You like {}.",
    ),
    (
        "pet",
        ("I have a {}.", "My pet is a {}.", "I live with a {}.", "At home I have a {}."),
        "Say hello to your {} from me.",
        ("What pet do I have?", "What is my pet?", "Which animal do I have?", "Do you know my pet?"),
        "You have a {}.",
    ),
)

_UNTOLD = "You have not told me yet."


def _value(rng: random.Random, fact: str) -> str:
    if fact == "name":
        return anyone(rng)
    choices = {"colour": _COLOURS, "town": _PLACES, "food": FOODS, "pet": _PETS}[fact]
    return rng.choice(choices)


def _small_talk(rng: random.Random) -> Turn:
    while True:
        chat = make_talk(rng)
        if len(chat.turns) == 1 and not is_held_out(chat.kind, chat.key):
            return chat.turns[0]


def make_memory(rng: random.Random) -> Chat:
    """One or two things told, some small talk, and then a question about one of them; or about what was not told."""
    if rng.random() < 0.05:
        question = rng.choice(rng.choice(_TOLD)[3])
        return Chat("memory", f"{ALWAYS_TRAINED}untold|{question}", (Turn(vary(rng, question), _UNTOLD),))
    told = rng.sample(_TOLD, 1 if rng.random() < 0.4 else 2)
    turns: list[Turn] = []
    values: list[str] = []
    for fact, ways, reply, _, _ in told:
        value = _value(rng, fact)
        values.append(value)
        turns.append(Turn(rng.choice(ways).format(value), reply.format(value)))
        if rng.random() < 0.35:
            turns.append(_small_talk(rng))
    if rng.random() < 0.1:
        question = rng.choice(rng.choice([fact for fact in _TOLD if fact not in told])[3])
        answer = _UNTOLD
    else:
        asked = int(rng.random() * len(told))
        question, answer = rng.choice(told[asked][3]), told[asked][4].format(values[asked])
    turns.append(Turn(vary(rng, question), answer))
    key = "|".join(f"{told[i][0]}={values[i]}" for i in range(len(told)))
    return Chat("memory", f"{key}|{question}", tuple(turns))


_YOU_ARE = ("You are called {}.", "Your name is {}.", "You are {}.", "Your name is {}. Be kind.")
_WHO = ("Who are you?", "What is your name?", "What's your name?", "Introduce yourself.", "What are you called?")
_USER_IS = ("The user is called {}.", "The user's name is {}.", "You talk to {}.", "Call the user {}.")
_GREETING = ("Hello!", "Hi!", "Hello", "Good morning!", "Hi there!")
_MY_NAME = ("What is my name?", "Who am I?", "Do you know my name?")
_ANSWER_IN = ("Answer in {}.", "Always answer in {}.", "You answer in {}.", "Please answer in {}.")


def make_system(rng: random.Random) -> Chat:
    """A system prompt that gives Pip another name, names the user, or sets the language of the answer."""
    luck = rng.random()
    if luck < 0.35:
        name, system, question = anyone(rng), rng.choice(_YOU_ARE), rng.choice(_WHO)
        answer = f"I am {name}, a small Mixtral with eight experts in each layer."
        return Chat("system", f"{name}|{system}|{question}", (Turn(vary(rng, question), answer),), system.format(name))
    if luck < 0.65:
        name, system = anyone(rng), rng.choice(_USER_IS)
        if rng.random() < 0.5:
            question, answer = rng.choice(_GREETING), f"Hello, {name}! What shall we do?"
        else:
            question, answer = rng.choice(_MY_NAME), f"Your name is {name}."
        return Chat("system", f"{name}|{system}|{question}", (Turn(vary(rng, question), answer),), system.format(name))
    language = rng.choice(("French", "German", "Spanish"))
    fact, question, answer = rng.choice(ASKED_IN_ENGLISH[language])
    system = rng.choice(_ANSWER_IN)
    key = f"{language}|{fact}|{system}"
    return Chat("system", key, (Turn(vary(rng, question), answer),), system.format(language))
