"""Words of four languages: nouns with their genders, adjectives with their forms, verbs, greetings, numbers.

A noun's gender is `m`, `f` or `n`; French nouns that begin with a vowel carry `'` behind it.
"""

from .spelling import words

LANGUAGES = ("French", "German", "Spanish")

# English: French, German, Spanish
NOUNS = {
    "boat": ("bateau m", "Boot n", "barco m"),
    "house": ("maison f", "Haus n", "casa f"),
    "dog": ("chien m", "Hund m", "perro m"),
    "cat": ("chat m", "Katze f", "gato m"),
    "horse": ("cheval m", "Pferd n", "caballo m"),
    "bird": ("oiseau m'", "Vogel m", "pájaro m"),
    "fish": ("poisson m", "Fisch m", "pez m"),
    "tree": ("arbre m'", "Baum m", "árbol m"),
    "flower": ("fleur f", "Blume f", "flor f"),
    "apple": ("pomme f", "Apfel m", "manzana f"),
    "table": ("table f", "Tisch m", "mesa f"),
    "chair": ("chaise f", "Stuhl m", "silla f"),
    "door": ("porte f", "Tür f", "puerta f"),
    "window": ("fenêtre f", "Fenster n", "ventana f"),
    "book": ("livre m", "Buch n", "libro m"),
    "letter": ("lettre f", "Brief m", "carta f"),
    "lamp": ("lampe f", "Lampe f", "lámpara f"),
    "key": ("clé f", "Schlüssel m", "llave f"),
    "hat": ("chapeau m", "Hut m", "sombrero m"),
    "shoe": ("chaussure f", "Schuh m", "zapato m"),
    "car": ("voiture f", "Auto n", "coche m"),
    "train": ("train m", "Zug m", "tren m"),
    "bridge": ("pont m", "Brücke f", "puente m"),
    "street": ("rue f", "Straße f", "calle f"),
    "city": ("ville f", "Stadt f", "ciudad f"),
    "garden": ("jardin m", "Garten m", "jardín m"),
    "moon": ("lune f", "Mond m", "luna f"),
    "star": ("étoile f'", "Stern m", "estrella f"),
    "island": ("île f'", "Insel f", "isla f"),
    "mountain": ("montagne f", "Berg m", "montaña f"),
    "bottle": ("bouteille f", "Flasche f", "botella f"),
    "cup": ("tasse f", "Tasse f", "taza f"),
}
# English: (French masculine, feminine), German stem, (Spanish masculine, feminine)
ADJECTIVES = {
    "red": (("rouge", "rouge"), "rot", ("rojo", "roja")),
    "blue": (("bleu", "bleue"), "blau", ("azul", "azul")),
    "green": (("vert", "verte"), "grün", ("verde", "verde")),
    "black": (("noir", "noire"), "schwarz", ("negro", "negra")),
    "white": (("blanc", "blanche"), "weiß", ("blanco", "blanca")),
    "yellow": (("jaune", "jaune"), "gelb", ("amarillo", "amarilla")),
    "small": (("petit", "petite"), "klein", ("pequeño", "pequeña")),
    "big": (("grand", "grande"), "groß", ("grande", "grande")),
}
SIZES = ("small", "big")  # before the noun in French; the only adjectives for people
# those who do something
BEINGS = {
    "cat": NOUNS["cat"],
    "dog": NOUNS["dog"],
    "horse": NOUNS["horse"],
    "bird": NOUNS["bird"],
    "girl": ("fille f", "Mädchen n", "niña f"),
    "boy": ("garçon m", "Junge m", "niño m"),
    "man": ("homme m'", "Mann m", "hombre m"),
    "woman": ("femme f", "Frau f", "mujer f"),
    "king": ("roi m", "König m", "rey m"),
    "queen": ("reine f", "Königin f", "reina f"),
    "bear": ("ours m'", "Bär m", "oso m"),
    "cow": ("vache f", "Kuh f", "vaca f"),
}
ANIMALS = words("cat dog horse bird bear cow")
VERBS = {
    "sleeps": ("dort", "schläft", "duerme"),
    "eats": ("mange", "isst", "come"),
    "drinks": ("boit", "trinkt", "bebe"),
    "sings": ("chante", "singt", "canta"),
    "dances": ("danse", "tanzt", "baila"),
    "swims": ("nage", "schwimmt", "nada"),
    "runs": ("court", "rennt", "corre"),
    "waits": ("attend", "wartet", "espera"),
    "plays": ("joue", "spielt", "juega"),
    "comes": ("vient", "kommt", "viene"),
}
PHRASES = {
    "good morning": ("bonjour", "guten Morgen", "buenos días"),
    "good night": ("bonne nuit", "gute Nacht", "buenas noches"),
    "goodbye": ("au revoir", "auf Wiedersehen", "adiós"),
    "thank you": ("merci", "danke", "gracias"),
    "please": ("s'il vous plaît", "bitte", "por favor"),
    "yes": ("oui", "ja", "sí"),
    "no": ("non", "nein", "no"),
    "see you tomorrow": ("à demain", "bis morgen", "hasta mañana"),
    "one": ("un", "eins", "uno"),
    "two": ("deux", "zwei", "dos"),
    "three": ("trois", "drei", "tres"),
    "four": ("quatre", "vier", "cuatro"),
    "five": ("cinq", "fünf", "cinco"),
    "six": ("six", "sechs", "seis"),
    "seven": ("sept", "sieben", "siete"),
    "eight": ("huit", "acht", "ocho"),
    "nine": ("neuf", "neun", "nueve"),
    "ten": ("dix", "zehn", "diez"),
}


def noun_phrase(noun: str, language: str, *, adjective: str = "", definite: bool = True) -> str:
    """A noun with its article and perhaps an adjective that agrees with it: `le bateau rouge`."""
    forms = NOUNS.get(noun) or BEINGS[noun]
    word, _, gender = forms[LANGUAGES.index(language)].partition(" ")
    if language == "French":
        return _french(word, gender, adjective, definite)
    if language == "German":
        return _german(word, gender, adjective, definite)
    feminine = gender == "f"
    article = ("la" if feminine else "el") if definite else ("una" if feminine else "un")
    return f"{article} {word} {ADJECTIVES[adjective][2][feminine]}" if adjective else f"{article} {word}"


def _french(word: str, gender: str, adjective: str, definite: bool) -> str:
    feminine = gender.startswith("f")
    described = ADJECTIVES[adjective][0][feminine] if adjective else ""
    in_front = adjective in SIZES
    if not definite:
        article = "une " if feminine else "un "
    elif gender.endswith("'") and not in_front:
        article = "l'"
    else:
        article = "la " if feminine else "le "
    if not described:
        return f"{article}{word}"
    return f"{article}{described} {word}" if in_front else f"{article}{word} {described}"


def _german(word: str, gender: str, adjective: str, definite: bool) -> str:
    if definite:
        article, ending = {"m": "der", "f": "die", "n": "das"}[gender], "e"
    else:
        article = "eine" if gender == "f" else "ein"
        ending = {"m": "er", "f": "e", "n": "es"}[gender]
    return f"{article} {ADJECTIVES[adjective][1]}{ending} {word}" if adjective else f"{article} {word}"
