"""Turn text into words to compare, and into characters that are safe to show."""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata

# Nobody reads further in a report, and a hostile text could fill it.
LONGEST_SHOWN = 10_000
# Thai, Lao and Khmer; Japanese; Chinese. Nothing in these scripts marks the end of a word.
UNSPACED = "\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
_LETTER = rf"[^\W{UNSPACED}]"
# A number is one word with its sign, its point and its digits, so 42 is in none of 142, 4.2, -42, 42/3 and 42,000.
# C++ and C# are words too, so C is in neither.
_WORD = re.compile(
    rf"[{UNSPACED}]|[+-]?(?:(?<![\w.])\.)?{_LETTER}+(?:(?:[.+-]|(?<=\d)/(?=\d)){_LETTER}+)*(?:(?<=[^\W\d_])(?:\+\+|#(?!\w)))?"
)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


# Characters that show nothing: controls, soft hyphens, joiners, marks of direction, variation selectors, fillers.
_UNSEEN = re.compile(
    "[\0-\b\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff]"
)
_QUOTES = re.compile(
    "[\"`\xab\xb4\xbb\u02b9-\u02bf\u2018-\u201f\u2032-\u2037\u2039\u203a\u275b-\u275e\u300c-\u300f\u301d-\u301f\uff02\uff07]+|''+"
)
_DASHES = re.compile("[\u02d7\u2010-\u2015\u2043\u2212\u2e3a\u2e3b\ufe58\ufe63\uff0d]")
# Quotation marks, spaces and the marks that begin a sentence in Spanish. A minus sign is part of a number.
_BEFORE = " '\xa1\xbf"
# Marks that end a sentence in one script or another.
_BEHIND = " '.?!,;:\u203d\u3001\u3002\u055e\u0589\u060c\u061b\u061f\u06d4\u0964\u0965\u104b\u1362\u1367\u17d4"
_FACTORIAL = re.compile(r"\d[)\]]*\Z")
# What is typed for a dash. In 5 - -3, dashes are signs.
_DOUBLE_DASH = re.compile(r"--+(?!\d)")


def question_key(text: str) -> str:
    """Return what two texts share if they ask the same: one key for a set, for both sides of a split and across sets.

    Case, Unicode form, white space, characters that show nothing, the kind of a quotation mark or dash, and the
    punctuation around the text make no other question. 5² and 5! are other questions than 52 and 5.
    """
    folded = _normal(_alike(text)).casefold()  # a case may have a form of its own, hence twice
    folded = _normal(_alike(folded)).casefold()
    key = _DOUBLE_DASH.sub("-", re.sub(" ?- ?", "-", " ".join(_alike(folded).split())))
    key = key.lstrip(_BEFORE) or key
    asked = key.rstrip(_BEHIND)
    behind = key[len(asked) :]
    if _FACTORIAL.search(asked[-9:]):
        asked += behind[: len(behind) - len(behind.lstrip("!"))]
    return asked or key


def _normal(text: str) -> str:
    """Return the NFKC form of *text*, in which only what changes the value of a number is left as it is."""
    if unicodedata.is_normalized("NFKC", text):
        return text
    parts = itertools.groupby(text, _changes_numbers)
    return "".join("".join(part) if kept else unicodedata.normalize("NFKC", "".join(part)) for kept, part in parts)


@functools.cache
def _changes_numbers(char: str) -> bool:
    """Return whether NFKC makes another number of *char* and its neighbours: a superscript, a subscript, a fraction."""
    form = unicodedata.normalize("NFKC", char)
    raised = unicodedata.decomposition(char).startswith(("<super>", "<sub>"))
    return raised or (not char.isdecimal() and any(map(str.isdecimal, form)))


def _alike(text: str) -> str:
    """Return *text* with one kind of quotation mark and of dash, and without characters that show nothing."""
    return _DASHES.sub("-", _QUOTES.sub("'", _UNSEEN.sub("", text)))


def words(text: str) -> str:
    """Return the words and numbers of *text* in lower case, with a space between them and without symbols."""
    return " ".join(_WORD.findall(_THOUSANDS.sub("", text.lower().replace("\N{MINUS SIGN}", "-"))))


def shortened(name: str, width: int = 24) -> str:
    """Cut the middle out of a long *name*: the beginning and the end tell students apart."""
    head = width // 3
    return name if len(name) <= width else f"{name[:head]}…{name[1 + head - width :]}"


def visible(text: str) -> str:
    """Return *text* on one line, without characters that steer a terminal, cut at ``LONGEST_SHOWN``."""
    shown = text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}… ({len(text)} characters)"
    return shown if shown.isprintable() else "".join(char if char.isprintable() else " " for char in shown)


def escape(text: str) -> str:
    """Return *text* as it can stand in Markdown: no table breaks, no markup, no control characters."""
    shown = visible(text).replace("\\", "\\\\").replace("<", "&lt;").replace("`", "'")
    for mark in ("|", "*", "~", "](", "]:"):
        shown = shown.replace(mark, f"{mark[:-1]}\\{mark[-1]}")
    # Inside a word an underscore or an @ means nothing. A bare address becomes a link on GitHub, so it is broken.
    shown = re.sub(r"(?<!\w)[_@]|_(?!\w)", r"\\\g<0>", shown)
    return re.sub(r"(https?|ftp)://|www\.", lambda match: match[0].replace(":", "&#58;").replace("w.", "w&#46;"), shown)


def counted_noun(n: int, one: str, more: str = "") -> str:
    """Return ``1 student``, ``2 students``."""
    return f"{n} {one if n == 1 else more or f'{one}s'}"
