"""English to French, German or Spanish, and back: nouns, nouns with adjectives, tiny sentences, greetings, numbers."""

import random

from .documents import ALWAYS_TRAINED, Chat, Turn
from .spelling import vary
from .vocabulary import ADJECTIVES, ANIMALS, BEINGS, LANGUAGES, NOUNS, PHRASES, SIZES, VERBS, noun_phrase

_OUT = (
    'How do you say "{}" in {}?',
    'What is "{}" in {}?',
    'Translate "{}" into {}.',
    'Translate "{}" to {}.',
    'How do I say "{}" in {}?',
    'Say "{}" in {}.',
)
_BACK = (
    'What does "{}" mean in English?',
    'What is "{}" in English?',
    'Translate "{}" into English.',
    'Translate "{}" to English.',
    'How do you say "{}" in English?',
)
_NOUNS, _ADJECTIVES, _BEINGS = tuple(NOUNS), tuple(ADJECTIVES), tuple(BEINGS)
_VERBS, _PHRASES = tuple(VERBS), tuple(PHRASES)


def _draw_pair(rng: random.Random, language: str) -> tuple[str, str]:
    """An English phrase and the same in `language`."""
    luck = rng.random()
    if luck < 0.06:
        phrase = rng.choice(_PHRASES)
        return phrase, PHRASES[phrase][LANGUAGES.index(language)]
    if luck < 0.28:
        noun, verb = rng.choice(_BEINGS), rng.choice(_VERBS)
        adjectives = _ADJECTIVES if noun in NOUNS or noun in ANIMALS else SIZES
        adjective = rng.choice(adjectives) if rng.random() < 0.4 else ""
        subject = noun_phrase(noun, language, adjective=adjective)
        english = f"The {adjective} {noun} {verb}." if adjective else f"The {noun} {verb}."
        return english, f"{subject[0].upper()}{subject[1:]} {VERBS[verb][LANGUAGES.index(language)]}."
    noun = rng.choice(_NOUNS)
    adjective = "" if luck < 0.4 else rng.choice(_ADJECTIVES)
    definite = rng.random() < 0.65 or (not adjective and noun == "moon")
    described = f"{adjective} {noun}" if adjective else noun
    article = "the" if definite else ("an" if described[0] in "aeiou" else "a")
    return f"{article} {described}", noun_phrase(noun, language, adjective=adjective, definite=definite)


def make_translation(rng: random.Random) -> Chat:
    """A phrase to be translated; the answer is the translation alone."""
    language = LANGUAGES[int(rng.random() * 3)]
    english, foreign = _draw_pair(rng, language)
    if rng.random() < 0.6:
        question, answer, way = rng.choice(_OUT).format(english, language), foreign, "out"
    else:
        question, answer, way = rng.choice(_BACK).format(foreign), english, "back"
    key = f"{english}|{language}|{way}"
    if english in PHRASES:  # nothing else teaches them
        key = ALWAYS_TRAINED + key
    return Chat("translation", key, (Turn(vary(rng, question), answer),))
