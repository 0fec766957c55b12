"""A student's own task: whether an answer gives what is expected."""

from __future__ import annotations

import re

# Thai, Lao and Khmer; Japanese; Chinese: nothing there says where a word ends.
UNSPACED = "\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
_LETTER = rf"[^\W{UNSPACED}]"
# A number keeps its sign, its point and its digits together: 42 is neither in 142 nor in 4.2, -42, 42/3 or 42,000. And
# C is neither C++ nor C#.
_WORD = re.compile(
    rf"[{UNSPACED}]|[+-]?(?:(?<![\w.])\.)?{_LETTER}+(?:(?:[.+-]|(?<=\d)/(?=\d)){_LETTER}+)*(?:(?<=[^\W\d_])(?:\+\+|#(?!\w)))?"
)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


def is_right(answer: str, expected: str) -> bool:
    """Whether *answer* gives *expected*: as whole words, whatever the case, spacing and punctuation around it.

    Where a script puts no space between words, its characters in their order.
    """
    return f" {words(expected)} " in f" {words(answer)} "


def words(text: str) -> str:
    """What counts of *text*: its words and numbers, a space between them; nothing of one that is all symbols."""
    return " ".join(_WORD.findall(_THOUSANDS.sub("", text.lower().replace("\N{MINUS SIGN}", "-"))))
