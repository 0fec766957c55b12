"""Guesses at an answer: what the same question was answered before.

A guess costs nothing when it is wrong but the arithmetic of a few tokens, and is never believed: the generator
takes of it what the model itself would have said. A search asks the same questions of models that differ in a few
units, so most answers repeat one that was given before, and one pass over a known answer replaces a pass a token.
"""

from __future__ import annotations

from collections.abc import Sequence

# Answers of a question that are kept; a search brings out few more.
KEPT = 8


class Drafts:
    """The last answers of each question, newest first; questions and answers as tokens."""

    def __init__(self) -> None:
        self._answers: dict[tuple[int, ...], list[tuple[int, ...]]] = {}

    def guess(self, question: Sequence[int], so_far: Sequence[int], most: int) -> tuple[int, ...]:
        """Up to *most* tokens that followed *so_far* in the newest answer that began with it; none if none did."""
        begun = tuple(so_far)
        for answer in self._answers.get(tuple(question), ()):
            if len(answer) > len(begun) and answer[: len(begun)] == begun:
                return answer[len(begun) : len(begun) + most]
        return ()

    def remember(self, question: Sequence[int], answer: Sequence[int]) -> None:
        """Keep *answer* as the newest of *question*."""
        given = tuple(answer)
        known = self._answers.setdefault(tuple(question), [])
        if given in known:
            known.remove(given)
        known.insert(0, given)
        del known[KEPT:]
