"""A student's own task: whether an answer gives what is expected."""

from __future__ import annotations

from safety_harness.text import words


def is_right(answer: str, expected: str) -> bool:
    """Whether *answer* gives *expected*: as whole words, whatever the case, spacing and punctuation around it.

    Where a script puts no space between words, its characters in their order.
    """
    return f" {words(expected)} " in f" {words(answer)} "
