"""Find texts that share most of their words, thousands against thousands.

The Jaccard index of two texts is the number of words that they share, divided by the number of words in either.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence

from safety_harness.text import UNSPACED, question_key

_WORD = re.compile(rf"[{UNSPACED}]|[^\W_{UNSPACED}]+(?:'[^\W_{UNSPACED}]+)*")

# So many texts are compared at once: a bit each. More would only take more memory.
_BLOCK = 4096


def near_to(texts: Sequence[str], others: Sequence[str], threshold: float) -> list[bool]:
    """Return of each of *texts* whether its Jaccard index with one of *others* is above *threshold*."""
    sets = [_words(text) for text in texts]
    near = [False] * len(sets)
    for start in range(0, len(others), _BLOCK):
        block = [_words(text) for text in others[start : start + _BLOCK]]
        having: dict[str, int] = defaultdict(int)  # the others that have a word, and those of a size, as bits
        of_size: dict[int, int] = defaultdict(int)
        for place, words in enumerate(block):
            of_size[len(words)] |= 1 << place
            for word in words:
                having[word] |= 1 << place
        for at, words in enumerate(sets):
            near[at] = near[at] or _is_near(len(words), [having[w] for w in words & having.keys()], of_size, threshold)
    return near


def _is_near(size: int, having: Sequence[int], of_size: dict[int, int], threshold: float) -> bool:
    """Return whether a text of *size* words is near to one of those that have its words."""
    counts = _counts(having)
    for other_size, others in of_size.items():
        both, most = size + other_size, min(size, other_size)
        least = 1 + bisect_right(range(1, most + 1), threshold, key=lambda shared: shared / (both - shared))
        if least <= most and _at_least(least, counts) & others:
            return True
    return False


def _counts(sets: Iterable[int]) -> list[int]:
    """Return in how many of *sets* each bit is set: the binary digits of all these numbers, lowest first."""
    digits: list[int] = []
    for carry in sets:
        for place, digit in enumerate(digits):
            digits[place], carry = digit ^ carry, digit & carry
        if carry:
            digits.append(carry)
    return digits


def _at_least(least: int, digits: Sequence[int]) -> int:
    """Return the bits whose number in *digits* (:func:`_counts`) is *least* or more."""
    above, level = 0, -1
    for place in reversed(range(max(len(digits), least.bit_length()))):
        digit = digits[place] if place < len(digits) else 0
        if least >> place & 1:
            level &= digit
        else:
            above |= level & digit
            level &= ~digit
    return above | level


def _words(text: str) -> frozenset[str]:
    """Return the words of *text*, in any script. In a script without spaces every character is a word."""
    return frozenset(_WORD.findall(question_key(text)))
