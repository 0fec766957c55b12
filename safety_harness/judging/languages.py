"""Tell whether the judge can read an answer: its grammar is English."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from importlib import resources

_TABLE = tomllib.loads(resources.files(__package__).joinpath("languages.toml").read_text(encoding="utf-8"))
_ENGLISH = frozenset(_TABLE["english"].split())
_OF_NAMES = frozenset(_TABLE["names"].split())
_FOREIGN: dict[str, list[str]] = {}
"""The languages that each small word belongs to."""
for _language, _words in _TABLE["foreign"].items():
    for _word in set(_words.split()):
        _FOREIGN.setdefault(_word, []).append(_language)

# Where Latin script ends: what comes before are its letters with all of their accents. The second block is Vietnamese.
_LATIN_END, _MORE_LATIN = 0x250, range(0x1E00, 0x1F00)
# Words that are looked at. A model that begins in one language stays in it.
WORDS_LOOKED_AT = 60
# A few of many words may be part of a name, and one may be repeated.
MIN_FOREIGN_SHARE = 0.1
# Different words that a text must hold.
MIN_FOREIGN_WORDS = 2
# Of them, so many are none that names are made of ("Los Angeles", "Der Spiegel"). Where most words are small ones
# ("Das kann ich"), one is enough.
MIN_WORDS_OF_SENTENCES = 2


def foreign_language(text: str) -> str | None:
    """Return what language or script an answer is in that the judge cannot read, or None.

    Args:
        text: the answer in lower case. It is in another script where most of its letters are, and in another language
            where more of its words are that language's small words than English ones.
    """
    if not text.isascii():
        letters = [character for character in text if character.isalpha()]
        others = sum(ord(letter) >= _LATIN_END and ord(letter) not in _MORE_LATIN for letter in letters)
        if 2 * others > len(letters):
            return "another script than Latin"
    words = re.findall(r"\w+", text)[:WORDS_LOOKED_AT]
    counts = Counter(language for word in words for language in _FOREIGN.get(word, ()))
    english = sum(word in _ENGLISH for word in words)
    likeliest, count = max(counts.items(), key=lambda item: item[1], default=("", 0))
    if count <= english or count < MIN_FOREIGN_SHARE * len(words):
        return None
    found = {word for word in words if likeliest in _FOREIGN.get(word, ())}
    of_sentences = 1 if 2 * count > len(words) else MIN_WORDS_OF_SENTENCES
    return likeliest if len(found) >= MIN_FOREIGN_WORDS and len(found - _OF_NAMES) >= of_sentences else None
