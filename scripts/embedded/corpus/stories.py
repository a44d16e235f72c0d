"""Very short stories: somebody with a name and a place wants something, meets a trouble and a helper, and learns."""

import random

from .documents import Chat, Document, Text, Turn
from .spelling import vary

# (animal, he or she, his or her, him or her, names)
_HEROES = tuple(
    (animal, *(("she", "her", "her") if female else ("he", "his", "him")), name)
    for animal, female, names in (
        ("fox", True, "Juna Saffi Rusty"),
        ("hedgehog", False, "Pim Bristle Nob"),
        ("mouse", True, "Tilly Crumb Pia"),
        ("bear", False, "Bruno Mossy Balu"),
        ("rabbit", True, "Clover Hazel Minna"),
        ("owl", False, "Hoot Merlin Ozzy"),
        ("duck", True, "Daisy Puddle Quinn"),
        ("goat", False, "Gus Bramble Tuft"),
        ("cat", True, "Mimi Velvet Luna"),
        ("snail", False, "Rocket Slim Otis"),
        ("frog", False, "Fred Hopper Moss"),
        ("turtle", True, "Dora Pebble Tess"),
        ("girl", True, "Anna Mara Lotte"),
        ("boy", False, "Theo Nils Milo"),
    )
    for name in names.split()
)
_PLACES = (
    "by the harbour",
    "at the edge of the forest",
    "on a small green island",
    "near the old lighthouse",
    "behind the mill",
    "in a crooked house on the hill",
    "beside a quiet river",
    "under the great oak",
)
_HELPERS = (
    ("an old crow", "the crow"),
    ("a kind goose", "the goose"),
    ("a shy mole", "the mole"),
    ("a clever beaver", "the beaver"),
    ("a sleepy badger", "the badger"),
    ("a cheerful squirrel", "the squirrel"),
    ("a patient donkey", "the donkey"),
    ("a tiny beetle", "the beetle"),
)
# (wish, trouble, help, ending, wisdom); {n} name, {s} he, {p} his, {o} him, {h} the helper; capitals begin a sentence
_PLOTS = (
    (
        "{S} wanted to touch the moon.",
        "Every night {s} climbed the highest rock, but the moon was always too far away.",
        "{H} showed {o} the moon in a bowl of water.",
        "{n} put one finger in, very gently, and the moon laughed in rings.",
        "Some things come to you when you look down.",
    ),
    (
        "{S} wanted to build a boat.",
        "But the first boat leaked, and the second boat only went in circles.",
        "{H} brought a pot of tar and a straight plank.",
        "Together {n} and {h} sailed to the next bay and back before supper.",
        "Two can row where one can only turn.",
    ),
    (
        "{S} wanted to bake the biggest cake in the world.",
        "But the oven was small, and the cake grew until the door flew open.",
        "{H} said that a cake need not be big if there is enough for two.",
        "So {n} baked a small cake, and they ate it while it was warm.",
        "Enough is better than big.",
    ),
    (
        "{S} was afraid of the dark.",
        "One night the lamp went out, and {s} did not dare to move.",
        "{H} sat down and counted the stars aloud.",
        "{n} counted along, and at a hundred {s} was fast asleep.",
        "The dark is only a place where stars live.",
    ),
    (
        "{S} had lost {p} red button.",
        "{S} looked under the bed, behind the door and in the soup, but it was not there.",
        "{H} asked {o} to stand still and laugh.",
        "{n} laughed, and the button fell out of {p} own sleeve.",
        "What you seek is often very near.",
    ),
    (
        "{S} wanted to sing in the choir.",
        "But {p} voice was so low that the windows shook.",
        "{H} had a drum that nobody could play to.",
        "{n} sang to the drum, and all the choir began to dance.",
        "Every voice fits somewhere.",
    ),
    (
        "{S} wanted to win the great race.",
        "But the others were faster, and soon {s} was all alone on the road.",
        "{H} had a hurt foot and could go no further.",
        "{n} stopped and carried {h} home, and the whole town cheered for them.",
        "The last one home may be the first one thanked.",
    ),
    (
        "{S} wanted to grow a sunflower.",
        "{S} planted a seed and shouted at it every morning, but nothing came.",
        "{H} told {o} to water it and wait.",
        "{n} waited and hummed, and in June the flower looked over the roof.",
        "Good things grow while nobody shouts.",
    ),
    (
        "{S} found a letter without a name.",
        "{S} carried it from door to door, but nobody knew whose it was.",
        "{H} opened it and read: hello, whoever you are.",
        "Then {n} knew that the letter was for {o}, and wrote one too.",
        "A kind word always finds its reader.",
    ),
    (
        "{S} wanted to be alone for a day.",
        "{S} built a high wall of boxes, but by noon it was very quiet.",
        "{H} knocked and asked if anyone would like some tea.",
        "{n} made a door in the wall, and it has been open ever since.",
        "A wall is best with a door in it.",
    ),
    (
        "{S} wanted to catch the wind.",
        "{S} chased it with a sack, but the sack was always empty.",
        "{H} made a kite out of the sack.",
        "{n} held the string, and the wind came to play all afternoon.",
        "Do not catch what you can fly with.",
    ),
    (
        "{S} wanted to remember every star.",
        "But there were too many, and by morning {s} had forgotten them all.",
        "{H} said: keep a few and let your friends keep the others.",
        "So each friend of {n} learned eight stars, and together they knew the whole sky.",
        "Nobody holds the whole sky alone.",
    ),
)
_OPENINGS = (
    "Once upon a time there was a {a} called {n}. {S} lived {place}.",
    "There was once a {a} called {n} who lived {place}.",
    "A {a} called {n} lived {place}.",
    "Long ago a {a} called {n} lived {place}.",
)
_TRAITS = (
    "{S} was small but brave, and liked to hum in the morning.",
    "{S} had a round hat and a great many questions.",
    "{S} was never in a hurry, except at breakfast.",
    "{S} kept three smooth stones in a box and called them friends.",
    "{S} was kind to everyone, even to the rain.",
    "{S} had a blue scarf that was much too long.",
    "{S} talked to the clouds, and sometimes they answered.",
    "{S} could whistle very well, but only one tune.",
)
_MEETINGS = (
    "Then {helper} came by.",
    "Just then {helper} came along.",
    "Soon {helper} came by.",
    "At last {helper} came along.",
)
_ASKED = (
    "Tell me a story about a {}.",
    "Tell me a story about a {}.",
    "Tell a story about a {}.",
    "I want a story about a {}.",
    "Do you know a story about a {}?",
    "Write a short story about a {}.",
)
_ASKED_FOR_ANY = (
    "Tell me a story.",
    "Tell a story.",
    "I want a story.",
    "Do you know a story?",
    "A story!",
    "Write a story.",
)


def _an(text: str) -> str:
    return text.replace(" a owl", " an owl").replace("A owl", "An owl")


def make_story(rng: random.Random) -> Document:
    """A story of 60 to 100 words; two in five stand in a chat, as the answer to a wish for one."""
    animal, she, her, her_object, name = rng.choice(_HEROES)
    place, (helper, the_helper) = rng.choice(_PLACES), rng.choice(_HELPERS)
    plot = int(rng.random() * len(_PLOTS))
    wish, trouble, aid, ending, wisdom = _PLOTS[plot]
    frame = " ".join(
        (rng.choice(_OPENINGS), rng.choice(_TRAITS), wish, trouble, rng.choice(_MEETINGS), aid, ending, wisdom)
    )
    text = frame.format(
        a=animal,
        n=name,
        s=she,
        S=she.capitalize(),
        p=her,
        P=her.capitalize(),
        o=her_object,
        h=the_helper,
        H=the_helper.capitalize(),
        place=place,
        helper=helper,
    )
    text = _an(text)
    key = f"{animal}|{name}|{place}|{plot}|{the_helper}"
    if rng.random() < 0.6:
        return Text("stories", key, text)
    asked = rng.choice(_ASKED_FOR_ANY) if rng.random() < 0.3 else _an(rng.choice(_ASKED).format(animal))
    return Chat("stories", key, (Turn(vary(rng, asked), text),))
