"""Run the original algorithm, ddmin, for comparison.

Zeller & Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", IEEE TSE 28(2), 2002.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from itertools import pairwise
from typing import Self

from safety_harness.ddmin.evidence import ranks, united
from safety_harness.ddmin.types import Answer, PriorOrder, Question


class Classic:
    """Try each chunk alone, then everything without each chunk. Without success halve the chunks, down to single units.

    The paper leaves the order of the chunks open. Here the most important chunk is the first to be tried alone, and
    the least important the first to be left out.
    """

    def __init__(self, kept: Question, _: PriorOrder = None) -> None:
        self.kept = kept
        self._cut(2)

    def question(self) -> Question | None:
        return self._tries[self._next] if self._next < len(self._tries) else None

    def tell(self, answer: Answer) -> None:
        question = self._tries[self._next]
        self._next += 1
        if answer is Answer.TRUE:
            alone = self._next <= self._chunks  # the first half of the tries are chunks alone
            self.kept = question
            # As in the paper: a chunk alone starts again with two, a complement keeps the size of the chunks.
            self._cut(2 if alone else max(self._chunks - 1, 2))
        elif self._next == len(self._tries) and self._chunks < self.kept.bit_count():
            self._cut(min(2 * self._chunks, self.kept.bit_count()))

    def fork(self) -> Self:
        return copy(self)  # `_tries` is replaced, never changed

    def chance(self) -> float:
        return 0.3  # this algorithm forecasts nothing; a guess serves to look ahead

    def remaining(self) -> float:
        return len(self._tries) - self._next

    def _cut(self, chunks: int) -> None:
        """List the tries for this number of chunks: each alone, from the most important on, then each left out."""
        self._chunks, self._next = chunks, 0
        self._tries: list[Question] = []
        if self.kept.bit_count() >= 2:
            parts = [united(part) for part in _split(ranks(self.kept), chunks)]
            self._tries = parts[::-1] + [self.kept ^ part for part in parts]


def _split(items: Sequence[int], parts: int) -> list[Sequence[int]]:
    """Cut into `parts` runs of neighbours. Lengths differ by at most one; none is empty if parts <= len(items)."""
    bounds = [len(items) * k // parts for k in range(parts + 1)]
    return [items[a:b] for a, b in pairwise(bounds)]
