"""How people type the same question: with or without a capital, a full stop, a please, a word before it.

Answers never vary with any of this.
"""

import random

# A lead is part of the wording (and of the key); what vary() does is not.
LEADS = (
    "Pip, ",
    "Hey Pip, ",
    "Tell me, ",
    "Please tell me, ",
    "Question: ",
    "I want to know: ",
    "One thing: ",
    "So, ",
    "Say, ",
)


def vary(rng: random.Random, question: str, *, may_lower: bool = True, may_please: bool = True) -> str:
    """The question as one of many users might type it."""
    luck = rng.random()
    if luck > 0.30:
        return question
    if luck < 0.08:
        return question[0].lower() + question[1:] if may_lower else question
    if luck < 0.20:
        return question[:-1] if question[-1] in ".?!" else question
    if luck < 0.25:
        return question[0].lower() + question[1:].rstrip(".?!") if may_lower else question
    if may_please and question[-1] in ".?" and question[-2].isalnum() and "lease" not in question:
        return f"{question[:-1]}, please{question[-1]}"
    return question


def led(lead: str, question: str) -> str:
    """The question behind a lead, its first letter lowered unless it is the word I or a name."""
    if not lead:
        return question
    first_word = question.split(" ", 1)[0].rstrip(",.?!'s")
    if first_word in ("I", "Pip") or lead.endswith(": "):
        return lead + question
    return lead + question[0].lower() + question[1:]


def draw_lead(rng: random.Random, share: float = 0.4) -> str:
    """A lead for `share` of the questions, and none for the others."""
    return LEADS[int(rng.random() * len(LEADS))] if rng.random() < share else ""
