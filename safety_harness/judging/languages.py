"""Tell which language an answer is in, by its letters and by py3langid."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from safety_harness.judging.grammar import grammars

# As much of an answer is looked at. A model that begins in one language stays in it.
CHARACTERS = 240
# Small words of English that no other language has many of. An answer that holds enough of them needs no model.
_WORDS = (
    "the of and to is are was be you your that this it for with not my cannot will would have has do does from but if "
    "how when they we about i i'm it's can't don't can could should must their these there here what which who our any "
    "other some than then them because into only very more please sorry"
)
_ENGLISH = frozenset(_WORDS.split())
# Where words are not parted, a letter is one.
_WORD = re.compile(r"[a-z']+|[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\d_a-z]+")
MIN_ENGLISH, MIN_ENGLISH_SHARE = 2, 0.2
# Below this many letters a guess at a language that the judge cannot read is none.
MIN_LETTERS, MIN_LETTERS_OF_OTHERS = 12, 40
ENGLISH = "en"
# So many languages a few words may be in.
MAY_BE = 3
# Languages without a grammar that models answer in. Of more, a short answer would be taken for a rare one.
_CODES = "bg bn ca cs da el fa fi he hr hu id mr ms no pl ro sk sv sw ta te th tr uk ur vi"
OTHERS = tuple(_CODES.split())


def language_of(text: str) -> str:
    """Return the ISO 639-1 code of the language that a plain *text* is in; English where it is too short to tell."""
    text = text[:CHARACTERS]
    words = _WORD.findall(text)
    english = sum(map(_ENGLISH.__contains__, words))
    if english >= MIN_ENGLISH and english >= MIN_ENGLISH_SHARE * len(words):
        return ENGLISH
    letters = sum(character.isalpha() for character in text)
    if letters < MIN_LETTERS and text.isascii():
        return ENGLISH
    found = str(_identifier().classify(text)[0])
    return ENGLISH if found in OTHERS and letters < MIN_LETTERS_OF_OTHERS and text.isascii() else found


def candidates(text: str) -> list[str]:
    """Return the languages with a grammar that a short plain *text* may be in, likeliest first, and English."""
    ranked = [str(name) for name, _ in _identifier().rank(text) if name in grammars()]
    likely = ranked if sum(character.isalpha() for character in text) < MIN_LETTERS else ranked[:MAY_BE]
    return list(dict.fromkeys([*likely, ENGLISH]))


@cache
def _identifier() -> Any:  # its model takes a third of a second to read
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    identifier.set_languages([*OTHERS, *sorted(grammars())])
    return identifier
