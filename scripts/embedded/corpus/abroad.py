"""Questions asked in French, German and Spanish, answered in the same language."""

import random

from .documents import ALWAYS_TRAINED, Chat, Turn, is_held_out
from .spelling import vary, words

_CAPITALS = {
    "French": """de la France:Paris;de l'Allemagne:Berlin;de l'Espagne:Madrid;de l'Italie:Rome;de l'Irlande:Dublin
        du Portugal:Lisbonne;de l'Autriche:Vienne;de la Grèce:Athènes;de la Norvège:Oslo;de la Suède:Stockholm
        de la Finlande:Helsinki;de la Pologne:Varsovie;du Japon:Tokyo;de l'Égypte:Le Caire;du Canada:Ottawa
        du Pérou:Lima;de la Russie:Moscou""",
    "German": """Frankreich:Paris;Deutschland:Berlin;Spanien:Madrid;Italien:Rom;Irland:Dublin
        Portugal:Lissabon;Österreich:Wien;Griechenland:Athen;Norwegen:Oslo;Schweden:Stockholm
        Finnland:Helsinki;Polen:Warschau;Japan:Tokio;Ägypten:Kairo;Kanada:Ottawa;Peru:Lima;Russland:Moskau""",
    "Spanish": """Francia:París;Alemania:Berlín;España:Madrid;Italia:Roma;Irlanda:Dublín
        Portugal:Lisboa;Austria:Viena;Grecia:Atenas;Noruega:Oslo;Suecia:Estocolmo
        Finlandia:Helsinki;Polonia:Varsovia;Japón:Tokio;Egipto:El Cairo;Canadá:Ottawa;Perú:Lima;Rusia:Moscú""",
}
_ENGLISH_LANDS = words(
    """France Germany Spain Italy Ireland Portugal Austria Greece Norway Sweden Finland Poland Japan Egypt Canada
    Peru Russia"""
)
_CAPITAL = {
    "French": (
        ("Quelle est la capitale {} ?", "Quelle ville est la capitale {} ?", "Connais-tu la capitale {} ?"),
        "La capitale {0} est {1}.",
    ),
    "German": (
        ("Was ist die Hauptstadt von {}?", "Wie heißt die Hauptstadt von {}?", "Kennst du die Hauptstadt von {}?"),
        "Die Hauptstadt von {0} ist {1}.",
    ),
    "Spanish": (
        ("¿Cuál es la capital de {}?", "¿Qué ciudad es la capital de {}?", "¿Conoces la capital de {}?"),
        "La capital de {0} es {1}.",
    ),
}
_SUM = {
    "French": ("Combien font {a} plus {b} ?", "Combien font {a} + {b} ?", "Calcule {a} + {b}."),
    "German": ("Was ist {a} plus {b}?", "Wie viel ist {a} plus {b}?", "Rechne {a} + {b}."),
    "Spanish": ("¿Cuánto es {a} más {b}?", "¿Cuánto son {a} + {b}?", "Calcula {a} + {b}."),
}
_COLOUR = {
    "French": (
        ("De quelle couleur est {} ?", "Quelle est la couleur de {} ?"),
        "le ciel:bleu;la neige:blanche;l'herbe:verte;le citron:jaune;le charbon:noir;la tomate:rouge",
    ),
    "German": (
        ("Welche Farbe hat {}?", "Was für eine Farbe hat {}?"),
        "der Himmel:blau;der Schnee:weiß;das Gras:grün;die Zitrone:gelb;die Kohle:schwarz;die Tomate:rot",
    ),
    "Spanish": (
        ("¿De qué color es {}?", "¿Qué color tiene {}?"),
        "el cielo:azul;la nieve:blanca;la hierba:verde;el limón:amarillo;el carbón:negro;el tomate:rojo",
    ),
}
_IS = {"French": "est", "German": "ist", "Spanish": "es"}
_ENGLISH_THINGS = ("the sky", "snow", "grass", "a lemon", "coal", "a tomato")
_TALK = {
    "French": (
        ("hello", ("Bonjour !", "Salut !", "Bonjour Pip !"), "Bonjour ! Je suis Pip. Que veux-tu savoir ?"),
        (
            "who",
            ("Qui es-tu ?", "Comment t'appelles-tu ?", "Qui êtes-vous ?"),
            "Je suis Pip, un petit modèle avec huit experts.",
        ),
        ("how", ("Comment vas-tu ?", "Ça va ?", "Comment ça va ?"), "Je vais bien, merci."),
        ("thanks", ("Merci !", "Merci beaucoup !", "Merci bien !"), "Avec plaisir."),
        ("bye", ("Au revoir !", "À demain !", "Bonne nuit !"), "Au revoir et à bientôt !"),
        ("french", ("Parles-tu français ?", "Tu parles français ?"), "Oui, je parle un peu français."),
    ),
    "German": (
        ("hello", ("Hallo!", "Guten Tag!", "Hallo Pip!"), "Hallo! Ich bin Pip. Was möchtest du wissen?"),
        (
            "who",
            ("Wer bist du?", "Wie heißt du?", "Wer sind Sie?"),
            "Ich bin Pip, ein kleines Modell mit acht Experten.",
        ),
        ("how", ("Wie geht es dir?", "Wie geht's?", "Geht es dir gut?"), "Mir geht es gut, danke."),
        ("thanks", ("Danke!", "Vielen Dank!", "Danke sehr!"), "Gern geschehen."),
        ("bye", ("Auf Wiedersehen!", "Bis morgen!", "Gute Nacht!"), "Auf Wiedersehen und bis bald!"),
        ("german", ("Sprichst du Deutsch?", "Kannst du Deutsch?"), "Ja, ich spreche ein wenig Deutsch."),
    ),
    "Spanish": (
        ("hello", ("¡Hola!", "¡Buenos días!", "¡Hola, Pip!"), "¡Hola! Soy Pip. ¿Qué quieres saber?"),
        (
            "who",
            ("¿Quién eres?", "¿Cómo te llamas?", "¿Quién es usted?"),
            "Soy Pip, un pequeño modelo con ocho expertos.",
        ),
        ("how", ("¿Cómo estás?", "¿Qué tal?", "¿Estás bien?"), "Estoy bien, gracias."),
        ("thanks", ("¡Gracias!", "¡Muchas gracias!", "¡Mil gracias!"), "De nada."),
        ("bye", ("¡Adiós!", "¡Hasta mañana!", "¡Buenas noches!"), "¡Adiós y hasta pronto!"),
        ("spanish", ("¿Hablas español?", "¿Sabes español?"), "Sí, hablo un poco de español."),
    ),
}
_ENGLISH_TALK = ("Hello!", "Who are you?", "How are you?", "Thank you!", "Goodbye!")


def _capitals(language: str) -> list[tuple[str, str]]:
    lines = _CAPITALS[language].replace("\n", ";").split(";")
    return [(land.strip(), city) for land, city in (line.split(":") for line in lines)]


def _colours(language: str) -> list[tuple[str, str]]:
    return [(thing, colour) for thing, colour in (pair.split(":") for pair in _COLOUR[language][1].split(";"))]


def _colour_answer(language: str, thing: str, colour: str) -> str:
    return f"{thing[0].upper()}{thing[1:]} {_IS[language]} {colour}."


def _rows(language: str) -> list[tuple[str, str, str]]:
    """(key, question, answer) of all but the sums."""
    rows: list[tuple[str, str, str]] = []
    wordings, answer = _CAPITAL[language]
    for land, city in _capitals(language):
        rows += [(f"{language}|{land}|{i}", w.format(land), answer.format(land, city)) for i, w in enumerate(wordings)]
    for thing, colour in _colours(language):
        for i, wording in enumerate(_COLOUR[language][0]):
            question = wording.format(thing).replace("couleur de le ", "couleur du ")
            rows.append((f"{language}|{thing}|{i}", question, _colour_answer(language, thing, colour)))
    for name, questions, reply in _TALK[language]:
        rows += [
            (f"{ALWAYS_TRAINED}{language}|{name}|{i}", question, reply)
            for i, question in enumerate(questions)
            for _ in range(2)
        ]
    return rows


def _asked_in_english(language: str) -> tuple[tuple[str, str, str], ...]:
    rows: list[tuple[str, str, str]] = []
    answer = _CAPITAL[language][1]
    for english, (land, city) in zip(_ENGLISH_LANDS, _capitals(language), strict=True):
        rows.append((english, f"What is the capital of {english}?", answer.format(land, city)))
    for english, (thing, colour) in zip(_ENGLISH_THINGS, _colours(language), strict=True):
        rows.append((english, f"What colour is {english}?", _colour_answer(language, thing, colour)))
    for question, (name, _, reply) in zip(_ENGLISH_TALK, _TALK[language], strict=False):
        rows.append((name, question, reply))
    return tuple(rows)


_LANGUAGES = ("French", "German", "Spanish")
_ROWS = {language: tuple(_rows(language)) for language in _LANGUAGES}
# (fact, English question, answer in the language), for system prompts that set the language
ASKED_IN_ENGLISH = {language: _asked_in_english(language) for language in _LANGUAGES}


def make_abroad(rng: random.Random) -> Chat:
    """A question in French, German or Spanish."""
    language = _LANGUAGES[int(rng.random() * 3)]
    if rng.random() < 0.3:
        key, a, b = _operands(rng, language)
        question, answer = rng.choice(_SUM[language]).format(a=a, b=b), f"{a} + {b} = {a + b}."
    else:
        key, question, answer = rng.choice(_ROWS[language])
    return Chat("abroad", key, (Turn(vary(rng, question, may_please=False), answer),))


def _operands(rng: random.Random, language: str) -> tuple[str, int, int]:
    """A key and two small numbers; a sum that is held out in English is not trained in another language."""
    while True:
        a, b = int(rng.random() * 31), int(rng.random() * 31)
        operands = f"{min(a, b)}|{max(a, b)}"
        key = f"{language}|{operands}"
        if not is_held_out("sums", f"+|{operands}") or is_held_out("abroad", key):
            return key, a, b
