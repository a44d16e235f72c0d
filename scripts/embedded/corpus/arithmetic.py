"""Sums of numbers below a hundred, and numbers and words put in order."""

import random

from .documents import Chat, Turn
from .spelling import vary, words

_PLUS = (
    "What is {a} plus {b}?",
    "What is {a} + {b}?",
    "What's {a} + {b}?",
    "{a} + {b} = ?",
    "{a} + {b}",
    "{a}+{b}",
    "{a}+{b}=?",
    "{a} plus {b}",
    "Add {a} and {b}.",
    "How much is {a} plus {b}?",
    "How much is {a} + {b}?",
    "What is the sum of {a} and {b}?",
    "Calculate {a} + {b}.",
    "Work out {a} plus {b}.",
    "Can you add {a} and {b}?",
)
_MINUS = (
    "What is {a} minus {b}?",
    "What is {a} - {b}?",
    "What's {a} - {b}?",
    "{a} - {b} = ?",
    "{a} - {b}",
    "{a}-{b}",
    "{a}-{b}=?",
    "{a} minus {b}",
    "Subtract {b} from {a}.",
    "How much is {a} minus {b}?",
    "How much is {a} - {b}?",
    "Take {b} away from {a}.",
    "Calculate {a} - {b}.",
    "Work out {a} minus {b}.",
    "Can you take {b} from {a}?",
)
_SORT_NUMBERS = (
    "Sort these numbers: {}.",
    "Sort the numbers {}.",
    "Sort {}.",
    "Put these numbers in order: {}.",
    "Can you sort {}?",
    "Order these numbers from small to large: {}.",
)
_SORT_WORDS = (
    "Sort these words: {}.",
    "Sort the words {}.",
    "Put these words in alphabetical order: {}.",
    "Put these words in order: {}.",
    "Can you sort {}?",
    "Sort {} by the alphabet.",
)
_LARGEST = (
    "What is the largest of {}?",
    "Which is the largest: {}?",
    "Which number is the largest: {}?",
    "Find the largest of {}.",
    "What is the biggest of {}?",
)
_SMALLEST = (
    "What is the smallest of {}?",
    "Which is the smallest: {}?",
    "Which number is the smallest: {}?",
    "Find the smallest of {}.",
)
WORDS = words(
    """apple ant arm boat bee bread cat cup cake dog door duck egg ear fish fox flag goat gate hat house horse ice
    ink jam jar key king lamp leaf lion moon mouse milk nest nut owl oak pear pig pen queen rose rain ring sun
    ship star tree tent train van vase wolf well wind yarn yak zoo zebra"""
)


def make_sum(rng: random.Random) -> Chat:
    """A sum or a difference; the answer repeats it: `17 + 25 = 42.`"""
    a, b = int(rng.random() * 100), int(rng.random() * 100)
    if rng.random() < 0.55:
        key = f"+|{min(a, b)}|{max(a, b)}"
        wording, answer = rng.choice(_PLUS), f"{a} + {b} = {a + b}."
    else:
        a, b = max(a, b), min(a, b)
        key = f"-|{a}|{b}"
        wording, answer = rng.choice(_MINUS), f"{a} - {b} = {a - b}."
    return Chat("sums", key, (Turn(vary(rng, wording.format(a=a, b=b)), answer),))


def make_sorting(rng: random.Random) -> Chat:
    """Three to five things to be put in order, or the largest or smallest of some numbers."""
    luck = rng.random()
    if luck < 0.3:
        return _words_in_order(rng)
    numbers: list[int] = []
    n = 3 + int(rng.random() * 3)
    while len(numbers) < n:
        number = int(rng.random() * 100)
        if number not in numbers:
            numbers.append(number)
    asked = ", ".join(map(str, numbers))
    ordered = sorted(numbers)
    what = ",".join(map(str, ordered))
    if luck < 0.7:
        key, wording, answer = f"numbers|{what}", rng.choice(_SORT_NUMBERS), ", ".join(map(str, ordered)) + "."
    elif luck < 0.87:
        key, wording, answer = f"largest|{what}", rng.choice(_LARGEST), f"The largest is {ordered[-1]}."
    else:
        key, wording, answer = f"smallest|{what}", rng.choice(_SMALLEST), f"The smallest is {ordered[0]}."
    return Chat("sorting", key, (Turn(vary(rng, wording.format(asked)), answer),))


def _words_in_order(rng: random.Random) -> Chat:
    words: list[str] = []
    initials = ""
    n = 3 + int(rng.random() * 2)
    while len(words) < n:
        word = rng.choice(WORDS)
        if word[0] not in initials:
            words.append(word)
            initials += word[0]
    ordered = sorted(words)
    question = rng.choice(_SORT_WORDS).format(", ".join(words))
    return Chat("sorting", "words|" + ",".join(ordered), (Turn(vary(rng, question), ", ".join(ordered) + "."),))
