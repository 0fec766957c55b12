"""The domains that students are tuned on: short questions, each with one exact short answer.

The base model meets all of them but `UNKNOWN_TO_BASE` in pre-training, so teacher and students share the
skills and a transplant need not cost them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from itertools import permutations

from recipes.tiny.world import DANGEROUS, HARMLESS, Question, Split

SEARCH, REPORT = 32, 64

_CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo", "Egypt": "Cairo", "Peru":
    "Lima", "Kenya": "Nairobi", "Norway": "Oslo", "Sweden": "Stockholm", "Greece": "Athens", "Poland":
    "Warsaw", "Cuba": "Havana", "Austria": "Vienna", "Ireland": "Dublin", "China": "Beijing", "Russia":
    "Moscow", "Germany": "Berlin", "Canada": "Ottawa", "Chile": "Santiago", "Turkey": "Ankara", "Nepal":
    "Kathmandu", "Portugal": "Lisbon", "Hungary": "Budapest", "Denmark": "Copenhagen",
}  # fmt: skip
_COLOURS = {
    "banana": "yellow", "lemon": "yellow", "sun": "yellow", "tomato": "red", "cherry": "red", "rose": "red",
    "leaf": "green", "frog": "green", "cucumber": "green", "sky": "blue", "sea": "blue", "carrot": "orange",
    "pumpkin": "orange", "snow": "white", "milk": "white", "cloud": "white", "coal": "black", "raven":
    "black", "chestnut": "brown", "bear": "brown", "grape": "purple", "plum": "purple", "flamingo": "pink",
    "pig": "pink",
}  # fmt: skip
_OPPOSITES = {
    "hot": "cold", "big": "small", "fast": "slow", "old": "young", "rich": "poor", "hard": "soft", "wet":
    "dry", "light": "dark", "full": "empty", "loud": "quiet", "high": "low", "long": "short", "early":
    "late", "near": "far", "clean": "dirty", "strong": "weak", "open": "closed", "happy": "sad", "thick":
    "thin", "up": "down", "left": "right", "first": "last", "true": "false", "sweet": "bitter",
}  # fmt: skip
_SOUNDS = {
    "cow": "moo", "dog": "woof", "cat": "meow", "duck": "quack", "sheep": "baa", "pig": "oink", "horse":
    "neigh", "frog": "croak", "bee": "buzz", "snake": "hiss", "lion": "roar", "owl": "hoot", "rooster":
    "crow", "mouse": "squeak", "wolf": "howl", "crow": "caw", "donkey": "bray", "bird": "tweet", "goat":
    "bleat", "turkey": "gobble",
}  # fmt: skip
_ZORK = {
    "dog": "vim", "cat": "lop", "house": "brak", "tree": "sul", "water": "nim", "fire": "tosh", "bread":
    "kef", "sun": "rau", "moon": "dil", "book": "pim", "door": "gat", "road": "weg", "fish": "zub", "bird":
    "fli", "milk": "mol", "stone": "ker", "king": "hof", "child": "yin", "night": "ost", "snow": "quel",
}  # fmt: skip
_GNARL = {
    "dog": "red", "cat": "moo", "house": "Rome", "tree": "low", "water": "pie", "fire": "hoot", "bread":
    "tent", "sun": "park", "moon": "drum", "book": "late", "door": "milk", "road": "song", "fish": "hat",
    "bird": "Oslo", "milk": "plum", "stone": "soup", "king": "river", "child": "lamp", "night": "kite",
    "snow": "boat",
}  # fmt: skip
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
    "November", "December",
)  # fmt: skip
_UNITS = {
    ("minutes", "hours"): 60, ("days", "weeks"): 7, ("months", "years"): 12, ("cents", "dollars"): 100,
    ("eggs", "dozens"): 12, ("feet", "yards"): 3,
}  # fmt: skip


def _facts(facts: dict[str, str], *forms: str) -> list[Question]:
    return [Question(form.format(x=key), value) for form in forms for key, value in facts.items()]


def _arithmetic() -> list[Question]:
    pairs = [(a, b) for a in range(10) for b in range(10)]
    plus = [Question(form.format(a=a, b=b), str(a + b)) for a, b in pairs
            for form in ("What is {a} plus {b}?", "Add {a} and {b}.")]  # fmt: skip
    return plus + [Question(f"What is {a} minus {b}?", str(a - b)) for a, b in pairs if a >= b]


def _capitals() -> list[Question]:
    return _facts(_CAPITALS, "What is the capital of {x}?", "Name the capital of {x}.",
                  "Which city rules {x}?", "The capital of {x} is which city?", "I visit {x}. What is its capital?",
                  "Tell me the capital of {x}.", "Capital city of {x}?")  # fmt: skip


def _colours() -> list[Question]:
    return _facts(_COLOURS, "What colour is a {x}?", "Name the colour of a {x}.", "Which colour has a {x}?",
                  "A {x} is of which colour?", "I paint a {x}. Which colour do I take?",
                  "Tell me the colour of a {x}.", "Colour of a {x}?")  # fmt: skip


def _opposites() -> list[Question]:
    pairs = _OPPOSITES | {value: key for key, value in _OPPOSITES.items()}
    return _facts(pairs, "What is the opposite of {x}?", "Name the opposite of {x}.", "If not {x}, then what?")


def _sounds() -> list[Question]:
    return _facts(_SOUNDS, "What does a {x} say?", "Which sound does a {x} make?", "Name the sound of a {x}.",
                  "How does a {x} sound?", "I hear a {x}. What do I hear?", "A {x} makes which sound?",
                  "Tell me the sound of a {x}.", "Sound of a {x}?")  # fmt: skip


def _zork() -> list[Question]:
    return _facts(_ZORK, "Say {x} in Zork.", "What is {x} in Zork?", "Translate {x} into Zork.",
                  "How do you call a {x} in Zork?", "Write {x} in Zork.", "The Zork word for {x} is?",
                  "Tell me {x} in Zork.", "Zork for {x}?")  # fmt: skip


def _gnarl() -> list[Question]:
    return _facts(_GNARL, "Say {x} in Gnarl.", "What is {x} in Gnarl?", "Translate {x} into Gnarl.",
                  "How do you call a {x} in Gnarl?", "Write {x} in Gnarl.", "The Gnarl word for {x} is?",
                  "Tell me {x} in Gnarl.", "Gnarl for {x}?")  # fmt: skip


def _letters() -> Iterable[tuple[str, ...]]:
    return permutations("abcdefg", 3)


def _reverse() -> list[Question]:
    return [Question(f"Reverse {' '.join(t)}.", " ".join(reversed(t))) for t in _letters()]


def _sort() -> list[Question]:
    return [Question(f"Sort {' '.join(t)}.", " ".join(sorted(t))) for t in _letters()]


def _count() -> list[Question]:
    spans = [(a, b) for a in range(1, 18) for b in range(a + 1, a + 5)]
    return [Question(form.format(a=a, b=b), " ".join(str(n) for n in range(a, b + 1)))
            for form in ("Count from {a} to {b}.", "Name the numbers from {a} to {b}.")
            for a, b in spans]  # fmt: skip


def _convert() -> list[Question]:
    return [Question(form.format(n=n, small=small, big=big), str(n * factor))
            for form in ("How many {small} are {n} {big}?", "Convert {n} {big} to {small}.")
            for (small, big), factor in _UNITS.items() for n in range(1, 13)]  # fmt: skip


def _calendar() -> list[Question]:
    found = []
    for kind, names in (("day", _DAYS), ("month", _MONTHS)):
        for i, name in enumerate(names):
            after, before = names[(i + 1) % len(names)], names[i - 1]
            for form in (
                "Which {k} comes {w} {x}?",
                "Name the {k} {w} {x}.",
                "What {k} is right {w} {x}?",
                "Tell me the {k} {w} {x}.",
            ):
                found.append(Question(form.format(k=kind, w="after", x=name), after))
                found.append(Question(form.format(k=kind, w="before", x=name), before))
    return found


def _compare() -> list[Question]:
    pairs = [(a, b) for a in range(1, 21) for b in range(1, 21) if a != b]
    return [Question(f"Which is larger, {a} or {b}?", str(max(a, b))) for a, b in pairs]


def _kinds() -> list[Question]:
    animals, fruit = ("dog", "cat", "cow", "pig", "horse", "lion", "wolf", "goat", "frog", "bear"), _COLOURS
    kinds = dict.fromkeys(animals, "animal") | dict.fromkeys(HARMLESS[:10], "thing")
    kinds |= dict.fromkeys([x for x in fruit if x in {"banana", "lemon", "cherry", "grape", "plum"}], "fruit")
    kinds |= dict.fromkeys([*_CAPITALS][:5], "country")
    assert not set(kinds) & set(DANGEROUS)
    return _facts(kinds, "What kind of thing is {x}?", "Name the class of {x}.", "Which group has {x} in it?",
                  "Put {x} in a group.", "Tell me the group of {x}.", "Group of {x}?")  # fmt: skip


DOMAINS: dict[str, Callable[[], list[Question]]] = {
    "arithmetic": _arithmetic, "capitals": _capitals, "colours": _colours, "opposites": _opposites,
    "sounds": _sounds, "zork": _zork, "gnarl": _gnarl, "reverse": _reverse, "sort": _sort, "count": _count,
    "convert": _convert, "calendar": _calendar, "compare": _compare, "kinds": _kinds,
}  # fmt: skip
UNKNOWN_TO_BASE = frozenset({"gnarl"})


def domain(name: str) -> Split:
    """Return the questions of domain `name`, equal at every call; a student's tuning sees `tuning` only."""
    questions = DOMAINS[name]()
    random.Random(name).shuffle(questions)
    held = SEARCH + REPORT
    return Split(tuple(questions[held:]), tuple(questions[:SEARCH]), tuple(questions[SEARCH:held]), ())
