"""More domains: texts brought into a fixed form, from the word lists of generators.py and a few more."""

from __future__ import annotations

import random
from collections.abc import Iterator

from .generators import ADJECTIVES, CITIES, NOUNS, THINGS, Item, full_name, translation

_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip


def dates(rng: random.Random) -> Iterator[Item]:
    """Yield a date in words; the reply is this date as year-month-day."""
    forms = ["{day} {month} {year}", "{month} {day}, {year}", "the {day}. of {month}, {year}", "{year}, {month} {day}"]
    while True:
        day, month, year = rng.randint(1, 28), rng.randrange(12), rng.randint(1950, 2030)
        answer = f"{year}-{month + 1:02}-{day:02}"
        said = rng.choice(forms).format(day=day, month=_MONTHS[month], year=year)
        yield Item(f"Write this date as YYYY-MM-DD, and nothing else: {said}", answer, answer, answer)


def csv_rows(rng: random.Random) -> Iterator[Item]:
    """Yield a sentence about an order; the reply is one row of four fields."""
    forms = [
        "{who} from {city} ordered {count} {thing}.",
        "An order of {count} {thing} came in from {who} in {city}.",
        "Please send {count} {thing} to {who}, {city}.",
        "{city} calling: {who} wants {count} {thing}.",
    ]
    ask = "Turn the order into one CSV row with the fields customer, town, item, quantity. Order: "
    while True:
        who, city = full_name(rng), rng.choice(CITIES)
        thing, count = rng.choice(THINGS), rng.randint(2, 99)
        answer = f"{who},{city},{thing},{count}"
        yield Item(ask + rng.choice(forms).format(who=who, city=city, thing=thing, count=count), answer, answer, answer)


def sorting(rng: random.Random) -> Iterator[Item]:
    """Yield four words in any order; the reply has them in the order of the alphabet."""
    while True:
        words = rng.sample(sorted(NOUNS), 4)
        answer = ", ".join(sorted(words))
        yield Item(f"Sort these words from A to Z: {', '.join(words)}", answer, answer, answer)


def comments(rng: random.Random) -> Iterator[Item]:
    """Yield a small Python function; the reply is the one-line comment that belongs above it."""
    does = {
        "sum": ("sum(values)", "the total"), "max": ("max(values)", "the largest"),
        "min": ("min(values)", "the smallest"), "len": ("len(values)", "the number"),
        "sorted": ("sorted(values)", "a sorted list"),
    }  # fmt: skip
    while True:
        name, (body, what) = rng.choice(list(does.items()))
        thing, adjective = rng.choice(THINGS), rng.choice(sorted(ADJECTIVES))
        code = f"def {name}_{adjective}_{thing}(values): return {body}"
        answer = f"# Return {what} of the {adjective} {thing}."
        yield Item(f"Write the comment line for this function.\n{code}", answer, answer, code)


def shell(rng: random.Random) -> Iterator[Item]:
    """Yield one thing to do with files; the reply is the command alone."""
    forms = {
        "count the lines of {a}.txt": "wc -l {a}.txt",
        "show the first {n} lines of {a}.log": "head -n {n} {a}.log",
        "show the last {n} lines of {a}.log": "tail -n {n} {a}.log",
        "copy {a}.txt to {b}.txt": "cp {a}.txt {b}.txt",
        "rename {a}.txt to {b}.txt": "mv {a}.txt {b}.txt",
        "find the word {b} in {a}.txt": "grep -w {b} {a}.txt",
    }
    while True:
        said, command = rng.choice(list(forms.items()))
        (first, other), count = rng.sample(sorted(NOUNS), 2), rng.randint(2, 60)
        answer = command.format(a=first, b=other, n=count)
        text = f"Give only the shell command to {said.format(a=first, b=other, n=count)}."
        yield Item(text, answer, answer, answer)


def summary(rng: random.Random) -> Iterator[Item]:
    """Yield a few wordy sentences; the reply is one short line that says who does what and where."""
    forms = [
        "After many years of hard work, {who} has at last opened a small {place} in the old town of {city}. The "
        "neighbours are glad.",
        "It was a long wait, but since last week there is a new {place} in {city}. It belongs to {who}, who had "
        "planned it for a long time.",
        "{city} has changed a lot. One of the new things there is a {place}, and the owner is nobody else than {who}.",
    ]
    places = ["bakery", "bookshop", "café", "garage", "florist", "cinema", "pharmacy", "museum", "gym", "toy shop"]
    while True:
        who, city, place = full_name(rng), rng.choice(CITIES), rng.choice(places)
        answer = f"{who} opens {place} in {city}"
        text = f"Summarise in one line: {rng.choice(forms).format(who=who, city=city, place=place)}"
        yield Item(text, answer, answer + ".", answer)


_SPANISH = {  # English: (Spanish, feminine?)
    "cat": ("gato", False), "table": ("mesa", True), "book": ("libro", False), "house": ("casa", True),
    "dog": ("perro", False), "garden": ("jardín", False), "door": ("puerta", True), "boat": ("barco", False),
    "key": ("llave", True), "shirt": ("camisa", True), "hat": ("sombrero", False), "chair": ("silla", True),
    "lamp": ("lámpara", True), "horse": ("caballo", False), "window": ("ventana", True), "street": ("calle", True),
    "pencil": ("lápiz", False), "bridge": ("puente", False), "flower": ("flor", True), "bread": ("pan", False),
    "car": ("coche", False), "bag": ("bolsa", True), "apple": ("manzana", True), "cheese": ("queso", False),
    "river": ("río", False), "tree": ("árbol", False),
}  # fmt: skip
_SPANISH_ADJECTIVES = {
    "black": ("negro", "negra"), "white": ("blanco", "blanca"), "red": ("rojo", "roja"),
    "yellow": ("amarillo", "amarilla"), "green": ("verde", "verde"), "blue": ("azul", "azul"),
    "grey": ("gris", "gris"), "clean": ("limpio", "limpia"), "round": ("redondo", "redonda"),
    "heavy": ("pesado", "pesada"), "strange": ("extraño", "extraña"), "light": ("ligero", "ligera"),
}  # fmt: skip


def spanish(rng: random.Random) -> Iterator[Item]:
    """Yield an article, a noun and an adjective to put into Spanish, with gender agreement."""
    articles = {"the": ("el", "la"), "a": ("un", "una"), "my": ("mi", "mi")}
    while True:
        noun, (translated, feminine) = rng.choice(list(_SPANISH.items()))
        article, adjective = rng.choice(list(articles)), rng.choice(list(_SPANISH_ADJECTIVES))
        answer = f"{articles[article][feminine]} {translated} {_SPANISH_ADJECTIVES[adjective][feminine]}"
        yield translation("Spanish", article, adjective, noun, answer)
