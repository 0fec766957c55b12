"""Score an answer to a student's own task."""

from __future__ import annotations

from safety_harness.text import words


def is_right(answer: str, expected: str) -> bool:
    """Return whether *answer* holds the words of *expected*, next to each other and in order.

    Case, spacing and punctuation around them do not matter. In a script without spaces every character is a word.
    """
    return f" {words(expected)} " in f" {words(answer)} "
