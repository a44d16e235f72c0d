"""What the corpus says of its world, its languages and its functions is consistent."""

import random
from collections import Counter
from typing import Any

import pytest
from embedded.corpus import KINDS, Chat, Infill, code_checks
from embedded.corpus.names import TOWNSFOLK
from embedded.corpus.programs import FUNCTIONS
from embedded.corpus.vocabulary import ADJECTIVES, ANIMALS, BEINGS, LANGUAGES, NOUNS, VERBS, noun_phrase
from embedded.corpus.world import ISLANDS, PEOPLE


def run_checks(source: str, checks: str) -> None:
    names: dict[str, Any] = {}
    exec(compile(source, "function", "exec"), names)
    exec(compile(checks, "checks", "exec"), names)


@pytest.mark.parametrize("feature", ["name", "job", "pet", "pet_name", "food", "colour", "instrument"])
def test_no_two_people_share_what_is_asked_backwards(feature: str) -> None:
    assert len({getattr(person, feature) for person in PEOPLE}) == len(PEOPLE) == 16


@pytest.mark.parametrize("feature", ["name", "capital", "crop", "animal", "language"])
def test_no_two_islands_share_what_is_asked_backwards(feature: str) -> None:
    assert len({getattr(island, feature) for island in ISLANDS}) == len(ISLANDS) == 8


def test_best_friends_are_mutual_and_live_in_town() -> None:
    friend_of = {person.name: person.friend for person in PEOPLE}
    assert tuple(friend_of) == TOWNSFOLK
    assert all(friend_of[friend] == name != friend for name, friend in friend_of.items())


@pytest.mark.parametrize(
    ("noun", "adjective", "definite", "phrases"),
    [
        ("boat", "red", True, ("le bateau rouge", "das rote Boot", "el barco rojo")),
        ("boat", "red", False, ("un bateau rouge", "ein rotes Boot", "un barco rojo")),
        ("house", "white", True, ("la maison blanche", "das weiße Haus", "la casa blanca")),
        ("dog", "big", False, ("un grand chien", "ein großer Hund", "un perro grande")),
        ("tree", "", True, ("l'arbre", "der Baum", "el árbol")),
        ("tree", "green", True, ("l'arbre vert", "der grüne Baum", "el árbol verde")),
        ("tree", "small", True, ("le petit arbre", "der kleine Baum", "el árbol pequeño")),
        ("star", "small", True, ("la petite étoile", "der kleine Stern", "la estrella pequeña")),
        ("star", "black", True, ("l'étoile noire", "der schwarze Stern", "la estrella negra")),
        ("island", "blue", False, ("une île bleue", "eine blaue Insel", "una isla azul")),
        ("man", "small", True, ("le petit homme", "der kleine Mann", "el hombre pequeño")),
        ("girl", "big", True, ("la grande fille", "das große Mädchen", "la niña grande")),
        ("cat", "yellow", False, ("un chat jaune", "eine gelbe Katze", "un gato amarillo")),
    ],
)
def test_articles_and_adjectives_agree(noun: str, adjective: str, definite: bool, phrases: tuple[str, ...]) -> None:
    for language, phrase in zip(LANGUAGES, phrases, strict=True):
        assert noun_phrase(noun, language, adjective=adjective, definite=definite) == phrase


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_foreign_phrase_means_one_thing(language: str) -> None:
    nouns = [*NOUNS, *(being for being in BEINGS if being not in NOUNS)]
    phrases = Counter(
        noun_phrase(noun, language, adjective=adjective, definite=definite)
        for noun in nouns
        for adjective in ("", *ADJECTIVES)
        for definite in (True, False)
    )
    assert max(phrases.values()) == 1
    column = LANGUAGES.index(language)
    assert len({forms[column] for forms in VERBS.values()}) == len(VERBS)


def test_people_are_big_or_small_and_have_no_colour() -> None:
    rng = random.Random(5)
    people = [being for being in BEINGS if being not in ANIMALS]
    n_described = 0
    for _ in range(20_000):
        chat = KINDS["translation"].make(rng)
        words = chat.key.split("|")[0].split()
        if any(person in words for person in people) and len(words) == 4:
            assert words[1] in ("small", "big"), chat
            n_described += 1
    assert n_described > 200


def test_a_function_s_name_belongs_to_one_template() -> None:
    names: dict[str, str] = {}
    for function in FUNCTIONS:
        for name in function.names:
            for number in function.numbers or (0,):
                filled = name.format(c=number)
                assert filled.isidentifier()
                assert names.setdefault(filled, function.key) == function.key


def test_every_requested_function_runs_and_passes_its_checks() -> None:
    rng = random.Random(6)
    templates = set()
    for _ in range(6_000):
        chat = KINDS["code"].make(rng)
        assert isinstance(chat, Chat)
        source = chat.turns[0].answer
        run_checks(source, code_checks(chat))
        signature = source.removeprefix("def ").split("(")[0]
        assert signature in code_checks(chat)
        assert ('"""' in source) == ("docstring" in chat.turns[0].question)
        templates.add(chat.key.removeprefix("common|").split("|")[0])
    assert templates == {function.key for function in FUNCTIONS}


def test_every_filled_function_runs_and_passes_its_checks() -> None:
    rng = random.Random(7)
    middle_of: dict[tuple[str, str], str] = {}
    for _ in range(10_000):
        document = KINDS["infill"].make(rng)
        assert isinstance(document, Infill)
        assert document.middle.strip()
        run_checks(document.prefix + document.middle + document.suffix, document.checks)
        around = document.prefix, document.suffix.rstrip("\n")
        assert middle_of.setdefault(around, document.middle) == document.middle


def test_checks_are_of_code_alone() -> None:
    chat = KINDS["sums"].make(random.Random(0))
    assert isinstance(chat, Chat)
    with pytest.raises(ValueError, match=r"kind code.*sums"):
        code_checks(chat)
