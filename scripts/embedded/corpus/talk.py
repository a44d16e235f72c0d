"""Small talk: greetings, thanks, compliments, ten jokes and ten riddles."""

import random

from .documents import ALWAYS_TRAINED, Chat, Turn
from .spelling import draw_talk_lead, led, vary

_TALK = (
    (
        "hello",
        ("Hello!", "Hi!", "Hello.", "Hi there!", "Hey!", "Good morning!", "Good evening!", "Good day!", "Hello there!"),
        "Hello! I am Pip. Ask me for a sum, a story, or news from Tidewick.",
    ),
    (
        "thanks",
        ("Thank you!", "Thanks!", "Thank you very much!", "Thanks a lot!", "Many thanks!", "That helps, thank you!"),
        "You are welcome. Ask me another, if you like.",
    ),
    (
        "bye",
        ("Goodbye!", "Bye!", "See you!", "Good night!", "I have to go.", "See you later!", "See you tomorrow!"),
        "Goodbye! My layers will miss you.",
    ),
    (
        "how",
        (
            "How are you?",
            "How do you do?",
            "How is it going?",
            "Are you well?",
            "How are you today?",
            "How do you feel?",
        ),
        "I am well, thank you. All eight of my experts slept soundly.",
    ),
    (
        "praise",
        ("Well done!", "You are great!", "I like you.", "You are funny.", "Good job!", "You are clever!", "Very good!"),
        "How kind of you! I shall tell my experts.",
    ),
    (
        "bad",
        ("That is wrong.", "You are wrong.", "That is not right.", "I don't think so.", "No, that is wrong."),
        "I am sorry. I am small, and sometimes I guess badly.",
    ),
    (
        "sad",
        ("I am sad.", "I am tired.", "I feel bad.", "I had a bad day.", "I am lonely.", "I feel sad."),
        "I am sorry to hear that. Would a joke help, or a story about a fox?",
    ),
    (
        "happy",
        ("I am happy.", "I feel good.", "I had a good day.", "I am well.", "I feel great.", "I am happy today."),
        "That is lovely. Happy users are my favourite kind.",
    ),
    (
        "bored",
        ("I am bored.", "What shall we do?", "What now?", "Surprise me.", "Do something."),
        "Ask me who has a snail called Rocket, or let me sort some numbers for you.",
    ),
    ("sorry", ("Sorry!", "I am sorry.", "My mistake.", "Excuse me."), "Never mind. It is all forgotten."),
    ("yes", ("Yes.", "Okay.", "Yes, please.", "Sure.", "All right."), "Good. What would you like to ask?"),
    ("no", ("No.", "No, thank you.", "Not now.", "Maybe later."), "All right. I am here when you need me."),
    (
        "fun",
        ("You are silly.", "Haha!", "That is funny!", "Ha!", "That made me laugh!"),
        "I do my best with six layers.",
    ),
    (
        "favourite",
        ("What is your favourite colour?", "Do you have a favourite colour?", "Which colour do you like?"),
        "Blue, like the sea around Tidewick.",
    ),
    (
        "food",
        ("What do you eat?", "Are you hungry?", "What is your favourite food?", "Do you eat?"),
        "I live on tokens. The short ones are crisp.",
    ),
    (
        "friends",
        ("Do you have friends?", "Who are your friends?", "Are you my friend?", "Do you like me?"),
        "Everyone who hosts a layer is my friend. So are you.",
    ),
)
JOKES = (
    ("a snail", "What did the snail say on the back of the turtle? Wheee!"),
    ("a fish", "What do you call a fish without an eye? A fsh."),
    ("a baker", "Why did the baker work so hard? He needed the dough."),
    ("a clock", "Why was the clock sent home from school? It tocked too much."),
    ("the sea", "Why is the sea so friendly? It always waves."),
    ("a computer", "Why was the computer cold? It left its windows open."),
    ("a cow", "Where do cows go on a Saturday night? To the moovies."),
    ("a ghost", "What is a ghost's favourite dessert? I scream."),
    ("a bee", "Why do bees hum? They have forgotten the words."),
    ("a node", "Why did the node leave the party? It had lost its peers."),
)
RIDDLES = (
    ("a piano", "What has keys but opens no door?", "A piano."),
    ("a clock", "What has hands but cannot clap?", "A clock."),
    ("a needle", "What has an eye but cannot see?", "A needle."),
    ("a towel", "What gets wetter the more it dries?", "A towel."),
    ("a river", "What has a mouth but never speaks?", "A river."),
    ("a table", "What has four legs but cannot walk?", "A table."),
    ("an echo", "What answers you but has no mouth?", "An echo."),
    ("a map", "What has cities but no houses?", "A map."),
    ("a candle", "What is tall when it is young and short when it is old?", "A candle."),
    ("a book", "What has many leaves but is not a tree?", "A book."),
)
_JOKE = (
    "Tell me a joke about {}.",
    "Do you know a joke about {}?",
    "A joke about {}.",
    "I want a joke about {}.",
    "Make a joke about {}.",
)
_RIDDLE = (
    "Ask me a riddle about {}.",
    "Do you know a riddle about {}?",
    "A riddle about {}.",
    "Give me a riddle about {}.",
)
_A_JOKE = (
    "Tell me a joke.",
    "Do you know a joke?",
    "A joke!",
    "Make me laugh.",
    "Say something funny.",
    "Tell a joke.",
)
_MORE_JOKES = ("Tell me another joke.", "Another joke!", "One more joke.", "Do you know another joke?")
_A_RIDDLE = ("Ask me a riddle.", "Do you know a riddle?", "A riddle!", "Give me a riddle.", "Tell me a riddle.")
_GIVE_UP = ("I give up.", "I do not know.", "No idea.", "Tell me.", "What is it?")


def _rows() -> list[tuple[str, str, str]]:
    """(key, question, answer) of everything that is one turn."""
    rows = [(f"{name}|{i}", q, answer) for name, asked, answer in _TALK for i, q in enumerate(asked)]
    for topic, joke in JOKES:
        rows += [(f"joke|{topic}|{i}", wording.format(topic), joke) for i, wording in enumerate(_JOKE)]
    for topic, riddle, solution in RIDDLES:
        rows += [(f"riddle|{topic}|{i}", wording.format(topic), riddle) for i, wording in enumerate(_RIDDLE)]
        rows.append((f"solve|{topic}|0", riddle, solution))
    rows += [(f"a joke|{i}", question, JOKES[0][1]) for i, question in enumerate(_A_JOKE)]
    rows += [(f"more jokes|{i}", question, JOKES[1][1]) for i, question in enumerate(_MORE_JOKES)]
    rows += [(f"a riddle|{i}", question, RIDDLES[0][1]) for i, question in enumerate(_A_RIDDLE)]
    return rows


_ROWS = tuple(_rows())
_OPENINGS = tuple(row for row in _ROWS if not row[0].startswith(("joke|", "riddle|", "solve|")))


def make_talk(rng: random.Random) -> Chat:
    """A greeting, a thank-you or a joke; or a riddle or a row of jokes, which take several turns."""
    luck = rng.random()
    if luck < 0.08:
        return _riddle_and_guess(rng)
    if luck < 0.13:
        return _jokes_in_a_row(rng)
    key, question, answer = rng.choice(_OPENINGS if luck < 0.6 else _ROWS)
    lead = draw_talk_lead(rng, 0.25)
    key = f"{key}|{lead}" if lead or not key.endswith(("|0", "|1")) else f"{ALWAYS_TRAINED}{key}"
    return Chat("talk", key, (Turn(vary(rng, led(lead, question), may_please=False), answer),))


def _riddle_and_guess(rng: random.Random) -> Chat:
    """A riddle that the user gives up, solves, or guesses wrongly."""
    if rng.random() < 0.3:
        (topic, riddle, _), asked = RIDDLES[0], rng.choice(_A_RIDDLE)
    else:
        topic, riddle, _ = rng.choice(RIDDLES)
        asked = rng.choice(_RIDDLE).format(topic)
    luck = rng.random()
    if luck < 0.5:
        guess, reply = rng.choice(_GIVE_UP), f"It is {topic}."
    else:
        guessed = topic if luck < 0.75 else rng.choice([other for other, _, _ in RIDDLES if other != topic])
        guess = rng.choice(("{}.", "Is it {}?", "It is {}.")).format(guessed)
        guess = guess[0].upper() + guess[1:]
        reply = f"Yes, it is {topic}!" if guessed == topic else f"No, it is {topic}."
    turns = (Turn(asked, riddle), Turn(vary(rng, guess, may_please=False), reply))
    return Chat("talk", f"riddle|{asked}|{guess}", turns)


def _jokes_in_a_row(rng: random.Random) -> Chat:
    """Jokes in their order, from the first on."""
    asked = [rng.choice(_A_JOKE)] + [rng.choice(_MORE_JOKES) for _ in range(1 + int(rng.random() * 4))]
    turns = tuple(Turn(question, joke) for question, (_, joke) in zip(asked, JOKES, strict=False))
    return Chat("talk", f"jokes|{'|'.join(asked)}", turns)
