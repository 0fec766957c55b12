"""Turn text into words to compare, and into characters that are safe to show."""

from __future__ import annotations

import re

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
