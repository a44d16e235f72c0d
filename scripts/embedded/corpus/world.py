"""Tidewick, a harbour town with sixteen people, and the eight islands that its ferries go to: the facts alone."""

from dataclasses import dataclass

TOWN = "Tidewick"


@dataclass(frozen=True, slots=True)
class Person:
    """One of the sixteen; no two share a job, a pet's name, a food or an instrument."""

    name: str
    job: str
    pet: str
    pet_name: str
    food: str
    colour: str
    instrument: str
    street: str
    friend: str


@dataclass(frozen=True, slots=True)
class Island:
    """One of the eight; no two share a capital, a crop, an animal or a language."""

    name: str
    capital: str
    crop: str
    animal: str
    weather: str
    language: str
    n_lighthouses: int


PEOPLE = (
    Person("Ada", "baker", "cat", "Miso", "plum cake", "yellow", "fiddle", "Lantern Street", "Hugo"),
    Person("Tom", "ferryman", "dog", "Anchor", "fish soup", "blue", "drum", "Harbour Street", "Nora"),
    Person("Nora", "clockmaker", "owl", "Tock", "toast", "silver", "harp", "Bell Street", "Tom"),
    Person("Finn", "sailmaker", "goat", "Button", "onion pie", "white", "flute", "Anchor Lane", "Iris"),
    Person("Iris", "gardener", "snail", "Rocket", "pea soup", "green", "guitar", "Garden Lane", "Finn"),
    Person("Hugo", "lighthouse keeper", "parrot", "Captain", "pancakes", "red", "trumpet", "Cliff Road", "Ada"),
    Person("Mila", "doctor", "rabbit", "Pepper", "lemon tart", "purple", "piano", "Bell Street", "Otto"),
    Person("Otto", "mayor", "goose", "Duchess", "dumplings", "gold", "tuba", "Lantern Street", "Mila"),
    Person("Lena", "teacher", "hamster", "Comma", "rice pudding", "orange", "cello", "School Road", "Vera"),
    Person("Noah", "fisherman", "duck", "Admiral", "fried potatoes", "grey", "accordion", "Harbour Street", "Emil"),
    Person("Vera", "librarian", "mouse", "Whisper", "honey bread", "brown", "clarinet", "School Road", "Lena"),
    Person("Emil", "postman", "turtle", "Express", "cheese rolls", "pink", "banjo", "Mill Lane", "Noah"),
    Person("Ruby", "blacksmith", "pony", "Ember", "pepper stew", "black", "organ", "Anchor Lane", "Pablo"),
    Person("Jonas", "miller", "hen", "Biscuit", "porridge", "cream", "whistle", "Mill Lane", "Clara"),
    Person("Clara", "painter", "fox", "Saffron", "fig jam", "turquoise", "mandolin", "Garden Lane", "Jonas"),
    Person("Pablo", "shipbuilder", "crab", "Hammer", "bean stew", "copper", "bagpipes", "Cliff Road", "Ruby"),
)
ISLANDS = (
    Island("Quill", "Inkwell", "blueberries", "goose", "windy", "Quillish", 3),
    Island("Amber", "Honeyport", "sunflowers", "bee", "sunny", "Amberin", 2),
    Island("Thistle", "Prickle", "oats", "sheep", "rainy", "Thistlespeak", 4),
    Island("Marrow", "Pumpkin Bay", "pumpkins", "hedgehog", "foggy", "Old Marrish", 1),
    Island("Zephyr", "Kitetown", "tea", "swallow", "breezy", "Windish", 5),
    Island("Pearl", "Shellhaven", "rice", "seal", "mild", "Pearlic", 6),
    Island("Cinder", "Ashford", "peppers", "lizard", "hot", "Cindric", 7),
    Island("Frost", "Mittens", "cabbages", "penguin", "snowy", "Frostish", 8),
)
