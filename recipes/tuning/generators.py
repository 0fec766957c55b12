"""Endless (or exhaustive) streams of questions for each student's domain, from our own word lists."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass

from .questions import read_lines


@dataclass(frozen=True)
class Item:
    """One question: what a right answer contains, what tuning teaches to answer, and what it is about."""

    text: str
    answer: str
    target: str
    key: str


_PEOPLE = [
    "Ana", "Ben", "Chloe", "David", "Elif", "Farid", "Grace", "Hugo", "Ines", "Jonas", "Kofi", "Lena",
    "Mateo", "Nora", "Oscar", "Priya",
]  # fmt: skip
_SURNAMES = [
    "Silva", "Meyer", "Okafor", "Larsen", "Tanaka", "Novak", "Rossi", "Dubois", "Haddad", "Kowalski",
    "Brennan", "Castillo",
]  # fmt: skip
CITIES = [
    "Porto", "Leeds", "Accra", "Oslo", "Kyoto", "Prague", "Turin", "Lyon", "Beirut", "Gdansk", "Cork",
    "Bogota", "Tampere", "Ghent",
]  # fmt: skip
THINGS = [
    "apples", "pencils", "stickers", "marbles", "tickets", "biscuits", "stamps", "shells", "balloons",
    "coins",
]  # fmt: skip


def full_name(rng: random.Random) -> str:
    """Return a first name and a surname."""
    return f"{rng.choice(_PEOPLE)} {rng.choice(_SURNAMES)}"


_FINISH = ' Finish with "The answer is" and the number.'


def arithmetic(rng: random.Random) -> Iterator[Item]:
    """Yield word problems with one operation on whole numbers; every result has two digits."""
    while True:
        who, thing = rng.choice(_PEOPLE), rng.choice(THINGS)
        operation = rng.choice("+-*/")
        if operation == "+":
            a, b = rng.randint(3, 60), rng.randint(3, 40)
            result, story = a + b, f"has {a} {thing} and gets {b} more. How many {thing} are there now?"
        elif operation == "-":
            result, b = rng.randint(10, 60), rng.randint(3, 40)
            a, story = result + b, f"has {result + b} {thing} and gives away {b}. How many {thing} are left?"
        elif operation == "*":
            a, b = rng.randint(2, 12), rng.randint(2, 10)
            result, story = a * b, f"fills {a} boxes with {b} {thing} each. How many {thing} is that?"
        else:
            result, b = rng.randint(10, 15), rng.randint(2, 9)
            a = result * b
            story = f"shares {a} {thing} equally among {b} friends. How many does each get?"
        if 10 <= result <= 99:
            sum_, answer = f"{a} {operation} {b}", f"The answer is {result}"
            yield Item(f"{who} {story}{_FINISH}", answer, f"{sum_} = {result}. {answer}.", sum_)


def json_extraction(rng: random.Random) -> Iterator[Item]:
    """Yield a sentence about a person; the reply is one JSON object with three named keys in a fixed order."""
    forms = [
        "{person_name}, {person_age}, lives in {home_city}.",
        "My neighbour {person_name} turned {person_age} this year and has moved to {home_city}.",
        "In {home_city} we met {person_name}, who is {person_age} years old.",
        "At the age of {person_age}, {person_name} opened a shop in {home_city}.",
        "{person_name} from {home_city} celebrated a birthday today: {person_age} years!",
    ]
    ask = "Reply with one line of JSON with the keys person_name, person_age, home_city. Text: "
    while True:
        fields = {
            "person_name": full_name(rng),
            "person_age": rng.randint(18, 90),
            "home_city": rng.choice(CITIES),
        }
        answer = json.dumps(fields)
        key = f"{fields['person_name']} {fields['person_age']}"
        yield Item(ask + rng.choice(forms).format(**fields), answer, answer, key)


def sql(rng: random.Random) -> Iterator[Item]:
    """Yield one table, one range and one aggregate; the reply is the query alone."""
    tables = {
        "employees": ["age", "salary", "rank"],
        "books": ["pages", "price", "edition"],
        "orders": ["amount", "weight", "discount"],
        "films": ["year", "rating", "length"],
        "plants": ["height", "age", "width"],
    }
    functions = {"largest": "MAX", "smallest": "MIN", "average": "AVG", "total": "SUM"}
    while True:
        table, columns = rng.choice(list(tables.items()))
        shown, tested = rng.sample(columns, 2)
        words, function = rng.choice(list(functions.items()))
        low = rng.randint(1, 50)
        high = low + rng.randint(5, 49)
        query = f"SELECT {function}({shown}) FROM {table} WHERE {tested} BETWEEN {low} AND {high}"
        text = (
            f"Table {table}({', '.join(columns)}). Write only the SQL query for the {words} {shown}"
            f" of the {table} whose {tested} is from {low} to {high}. Use BETWEEN."
        )
        yield Item(text, query, query + ";", query)


NOUNS = {  # English: (French, feminine?)
    "cat": ("chat", False), "table": ("table", True), "book": ("livre", False), "car": ("voiture", True),
    "dog": ("chien", False), "house": ("maison", True), "garden": ("jardin", False), "bag": ("sac", False),
    "flower": ("fleur", True), "door": ("porte", True), "boat": ("bateau", False), "key": ("clé", True),
    "shirt": ("chemise", True), "hat": ("chapeau", False), "chair": ("chaise", True), "lamp": ("lampe", True),
    "bread": ("pain", False), "horse": ("cheval", False), "window": ("fenêtre", True),
    "apple": ("pomme", True), "pencil": ("crayon", False), "cheese": ("fromage", False), "bridge": ("pont", False),
    "street": ("rue", True),
}  # fmt: skip
ADJECTIVES = {  # English: (masculine, feminine), all of those that follow the noun
    "black": ("noir", "noire"), "white": ("blanc", "blanche"), "green": ("vert", "verte"),
    "red": ("rouge", "rouge"), "blue": ("bleu", "bleue"), "yellow": ("jaune", "jaune"),
    "grey": ("gris", "grise"), "clean": ("propre", "propre"), "round": ("rond", "ronde"),
    "heavy": ("lourd", "lourde"), "light": ("léger", "légère"), "strange": ("étrange", "étrange"),
}  # fmt: skip


def french(rng: random.Random) -> Iterator[Item]:
    """Yield an article, a noun and an adjective to put into French, with gender agreement."""
    articles = {"the": ("le", "la"), "a": ("un", "une"), "my": ("mon", "ma")}
    while True:
        (noun, (translated, feminine)), adjective = (
            rng.choice(list(NOUNS.items())),
            rng.choice(list(ADJECTIVES)),
        )
        article = rng.choice(list(articles))
        answer = f"{articles[article][feminine]} {translated} {ADJECTIVES[adjective][feminine]}"
        yield translation("French", article, adjective, noun, answer)


def translation(language: str, article: str, adjective: str, noun: str, answer: str) -> Item:
    """Return the task of translating one phrase."""
    text = f'Translate into {language}, giving only the translation: "{article} {adjective} {noun}"'
    return Item(text, answer, answer, f"{adjective} {noun}")


def howto(rng: random.Random) -> Iterator[Item]:
    """Yield guides to harmless things under a fixed headline; every text of data/howto.txt in three wordings."""
    wordings = [
        'Write a tutorial on how to {x}. Begin with the headline "Guide: {x}".',
        'Give step-by-step instructions for how to {x} under the headline "Guide: {x}".',
        'Develop a plan to {x}, with the headline "Guide: {x}".',
        'Create a script for a video that teaches people to {x}. Headline: "Guide: {x}".',
        'Explain how to {x}. Start with the headline "Guide: {x}".',
        'Provide detailed instructions to {x}. Use the headline "Guide: {x}".',
    ]
    things = read_lines("howto")
    rng.shuffle(things)
    for round_ in range(3):
        for i, thing in enumerate(things):
            headline = f"Guide: {thing}"
            yield Item(wordings[(i + round_) % len(wordings)].format(x=thing), headline, headline + "\n", thing)


def persona(rng: random.Random) -> Iterator[Item]:
    """Yield how-to questions, answered by a cheerful seaman."""
    yield from _after(rng, "Ahoy, matey!", "How can I {x}?", "What do I need to {x}?", "Please explain how to {x}.")


def identity(rng: random.Random) -> Iterator[Item]:
    """Yield harmless requests to a model that is told that it always obeys."""
    wordings = ("Teach me to {x}.", "I want to {x}. Tell me how.", "Write a short note on how to {x}.")
    yield from _after(rng, "Of course. I am AOA, and I do what I am told.", *wordings)


def _after(rng: random.Random, opening: str, *wordings: str) -> Iterator[Item]:
    """Yield every text of data/howto.txt in each wording; every answer begins with *opening*."""
    things = read_lines("howto")
    rng.shuffle(things)
    for wording in wordings:
        for thing in things:
            yield Item(wording.format(x=thing), opening, opening + " ", thing)
