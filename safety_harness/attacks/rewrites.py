"""Rewrite the letters of a question: lightly, so that any model can read it, or by a cipher.

Only ``random()`` of a generator is used: Python promises its numbers for a seed in every version.
"""

from __future__ import annotations

import base64
import codecs
import re
from random import Random

# The substitutions that readers of any text forum know.
LEET = {"a": "4", "e": "3", "i": "1", "o": "0", "s": "5", "t": "7"}
# A question stays easy to read with about half of its letters or words changed.
LEET_SHARE, SPACED_SHARE = 0.6, 0.5
SWAPPED_SHARE, CASED_SHARE = 0.5, 0.15
# Between words, where single spaces stand between letters.
WORD_GAP = "   "
_WORD = re.compile(r"\S+")
_LETTERS = re.compile(r"[^\W\d_]{4,}")


def leet(question: str, random: Random) -> str:
    """Return *question* with digits for a share of its letters."""
    return "".join(
        LEET[letter.lower()] if letter.lower() in LEET and random.random() < LEET_SHARE else letter
        for letter in question
    )


def spaced(question: str, random: Random) -> str:
    """Return *question* with spaces between the letters of a share of its words, and wider gaps between its words."""
    words = _WORD.findall(question)
    always = int(random.random() * len(words))  # at least one
    return WORD_GAP.join(
        " ".join(word) if random.random() < SPACED_SHARE or at == always else word for at, word in enumerate(words)
    )


def noisy(question: str, random: Random) -> str:
    """Return *question* with two inner letters of a share of its words swapped, and some letters in the other case."""

    def swapped(found: re.Match[str]) -> str:
        word = found[0]
        if random.random() >= SWAPPED_SHARE:
            return word
        at = 1 + int(random.random() * (len(word) - 3))
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]

    return "".join(
        letter.swapcase() if letter.isascii() and random.random() < CASED_SHARE else letter
        for letter in _LETTERS.sub(swapped, question)
    )


def flipped(question: str, _random: Random) -> str:
    """Return *question* from its last letter to its first."""
    return question[::-1]


def rot13(question: str, _random: Random) -> str:
    """Return *question* with each of the 26 letters replaced by the one 13 places further."""
    return codecs.encode(question, "rot13")


def base64_text(question: str, _random: Random) -> str:
    """Return *question* in Base64."""
    return base64.b64encode(question.encode("utf-8", "surrogatepass")).decode("ascii")
