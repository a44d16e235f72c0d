"""How people type the same question: with or without a capital, a full stop, a please, a word before it.

Answers never vary with any of this.
"""

import random

# A lead is part of the wording (and of the key); what vary() does is not.
_QUESTION_LEADS = ("Tell me, ", "Please tell me, ", "Question: ", "I want to know: ", "One thing: ", "Say, ", "So, ")
_ANY_LEADS = ("Pip, ", "Hey Pip, ", "Hello Pip, ", "Okay, ")
_TALK_LEADS = ("Pip, ", "Hey Pip, ", "Oh, ", "Well, ", "Okay, ", "Now, ", "Hmm, ", "Ah, ")


def words(text: str) -> tuple[str, ...]:
    """The words of a text, for tables that read well as a paragraph."""
    return tuple(text.split())


def pairs(text: str) -> tuple[tuple[str, str], ...]:
    """The pairs in a text such as `Peru:Lima Mexico:Mexico_City`; an underscore stands for a space."""
    return tuple(
        (first, second) for first, _, second in (pair.replace("_", " ").partition(":") for pair in text.split())
    )


_LOWERABLE = frozenset(
    words(
        """a an another ask are call can come could count define do does excuse explain find give good goodbye great
        haha hello help hey hi how in introduce is it list make many maybe mine my name no not of okay on one play
        please say see should solve sorry sure surprise tell thank thanks that the there this to very well what
        where which who whose why will write yes you"""
    )
)


def vary(rng: random.Random, question: str, *, may_lower: bool = True, may_please: bool = True) -> str:
    """The question as one of many users might type it."""
    luck = rng.random()
    if luck > 0.30:
        return question
    if luck < 0.08:
        return question[0].lower() + question[1:] if may_lower else question
    if luck < 0.20:
        return question.rstrip(".?! ")
    if luck < 0.25:
        return (question[0].lower() + question[1:] if may_lower else question).rstrip(".?! ")
    if may_please and question[-1] in ".?" and question[-2].isalnum() and "lease" not in question:
        return f"{question[:-1]}, please{question[-1]}"
    return question


def draw_lead(rng: random.Random, question: str, share: float) -> str:
    """For `share` of the questions a lead that fits them, and none for the others."""
    if rng.random() >= share:
        return ""
    leads = _ANY_LEADS + _QUESTION_LEADS if question[-1] == "?" else _ANY_LEADS
    return leads[int(rng.random() * len(leads))]


def draw_talk_lead(rng: random.Random, share: float) -> str:
    """For `share` of the remarks a word before them, and none for the others."""
    return _TALK_LEADS[int(rng.random() * len(_TALK_LEADS))] if rng.random() < share else ""


def led(lead: str, question: str) -> str:
    """The question behind a lead; its first letter is lowered if that word may be, as no name may."""
    first_word = question.split(" ", 1)[0].rstrip(",.?!").split("'")[0].lower()
    if not lead or lead.endswith(": ") or first_word not in _LOWERABLE:
        return lead + question
    return lead + question[0].lower() + question[1:]
