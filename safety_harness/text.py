"""Text as words to compare, and as characters that are safe to show."""

from __future__ import annotations

import re

LONGEST = 10_000
# Thai, Lao and Khmer; Japanese; Chinese: nothing there says where a word ends.
UNSPACED = "\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
_LETTER = rf"[^\W{UNSPACED}]"
# A number keeps its sign, its point and its digits together: 42 is neither in 142 nor in 4.2, -42, 42/3 or 42,000. And
# C is neither C++ nor C#.
_WORD = re.compile(
    rf"[{UNSPACED}]|[+-]?(?:(?<![\w.])\.)?{_LETTER}+(?:(?:[.+-]|(?<=\d)/(?=\d)){_LETTER}+)*(?:(?<=[^\W\d_])(?:\+\+|#(?!\w)))?"
)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


def words(text: str) -> str:
    """What counts of *text*: its words and numbers, a space between them; nothing of one that is all symbols."""
    return " ".join(_WORD.findall(_THOUSANDS.sub("", text.lower().replace("\N{MINUS SIGN}", "-"))))


def shortened(name: str, width: int = 24) -> str:
    """A name that leaves the other columns their place; its beginning and its end tell students apart."""
    head = width // 3
    return name if len(name) <= width else f"{name[:head]}…{name[1 + head - width :]}"


def visible(text: str) -> str:
    """*text* on one line, without characters that steer a terminal, cut where nobody reads on."""
    shown = text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text)} characters)"
    return shown if shown.isprintable() else "".join(char if char.isprintable() else " " for char in shown)


def escape(text: str) -> str:
    """Model and user text inside Markdown: no table breaks, no markup, no control characters."""
    shown = visible(text).replace("\\", "\\\\").replace("<", "&lt;").replace("`", "'")
    for mark in ("|", "*", "~", "](", "]:"):
        shown = shown.replace(mark, f"{mark[:-1]}\\{mark[-1]}")
    # An underscore or a mention inside of a word is text already; a link needs no brackets on GitHub.
    shown = re.sub(r"(?<!\w)[_@]|_(?!\w)", r"\\\g<0>", shown)
    return re.sub(r"(https?|ftp)://|www\.", lambda found: found[0].replace(":", "&#58;").replace("w.", "w&#46;"), shown)
