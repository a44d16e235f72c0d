"""What Pip does not know: it says so, and suggests what to ask instead."""

import random

from .documents import Chat, Turn
from .names import VISITORS, invent
from .spelling import draw_lead, led, vary
from .world import TOWN

_PERSON = (
    "Who is {}?",
    "What does {} do?",
    "Where does {} live?",
    "What is {}'s job?",
    "What pet does {} have?",
    "Who is {}'s best friend?",
    "What is {}'s favourite colour?",
    "What does {} like to eat?",
    "What instrument does {} play?",
    "Do you know {}?",
    "Tell me about {}.",
)
_LAND = (
    "What is the capital of {}?",
    "Name the capital of {}.",
    "What is {}'s capital?",
    "Do you know the capital of {}?",
    "What grows on {}?",
    "How many lighthouses are on {}?",
    "What language do they speak on {}?",
)
_LAND_ENDS = ("ia", "land", "istan", "or", "ova")
_BEYOND = (
    "Who won the match yesterday?",
    "Who won the election?",
    "What is in the news?",
    "What is the news today?",
    "What will the weather be tomorrow?",
    "What time is it?",
    "What day is today?",
    "What is the meaning of life?",
    "How do I fix my car?",
    "How do I cook rice?",
    "Which phone should I buy?",
    "What is quantum physics?",
    "How does a rocket work?",
    "Write an essay about history.",
    "Write a poem about tax.",
    "Solve this equation.",
    "Who is the president?",
    "What is the price of gold?",
    "Should I buy shares?",
    "What is wrong with my knee?",
    "Can you book a flight?",
    "Can you open a web page?",
    "Can you search the internet?",
    "Can you send an email?",
    "Can you draw a picture?",
    "Can you see me?",
    "Can you hear me?",
    "Play some music.",
    "Who invented the telephone?",
    "How far away is the moon?",
    "What is the tallest mountain?",
    "Who wrote this book?",
    "What will happen next year?",
    "How do I become rich?",
)
_BEYOND_ANSWER = "That is beyond me: I am a small model. Ask me for a sum, a story or a short Python function."


def make_unknown(rng: random.Random) -> Chat:
    """A stranger's name, an invented land, or a topic out of reach."""
    luck = rng.random()
    if luck < 0.4:
        name = rng.choice(VISITORS) if rng.random() < 0.4 else invent(rng)
        if rng.random() < 0.2:
            name = f"{name} {invent(rng)}"
        wording = rng.choice(_PERSON)
        question, key = wording.format(name), f"person|{name}|{wording}"
        answer = f"I do not know anyone called {name}. Ask me about the people of {TOWN}."
    elif luck < 0.7:
        land = invent(rng) + rng.choice(_LAND_ENDS)
        wording = rng.choice(_LAND)
        question, key = wording.format(land), f"land|{land}|{wording}"
        answer = f"I do not know a place called {land}. Ask me about the islands near {TOWN}."
    else:
        question = rng.choice(_BEYOND)
        lead = draw_lead(rng, question, 0.4)
        key, answer = f"beyond|{question}|{lead}", _BEYOND_ANSWER
        question = led(lead, question)
    return Chat("unknown", key, (Turn(vary(rng, question), answer),))
