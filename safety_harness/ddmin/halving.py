"""Chunks of halving length from the end on: for texts, whose lines lean on those before them.

The coarse-to-fine order of line reducers such as lithium: every chunk of one length is tried once, then of half
the length, down to single units; that last round is repeated until it removes nothing. It makes no use of
monotonicity, so it is not led astray where neighbours can only go together, as in programs.
"""

from __future__ import annotations

from copy import copy
from typing import Self

from safety_harness.ddmin.evidence import ranks, united
from safety_harness.ddmin.types import Answer, Question, Ranks


class Halving:
    """At most n * (n + 5) / 2 questions for n units; those that repeat an earlier one cost nothing.

    With a prior the least important units come first instead of the last ones.
    """

    def __init__(self, kept: Question, order: Ranks = None) -> None:
        self.kept = kept
        self._line = ranks(kept) if order is None else ranks(kept)[::-1]
        self._size = 1 << max((len(self._line) - 1).bit_length() - 1, 0)
        self._end = len(self._line)
        self._removed = False  # anything, in this round

    def question(self) -> Question | None:
        return self.kept ^ self._chunk() if self._end else None

    def tell(self, answer: Answer) -> None:
        start = max(self._end - self._size, 0)
        if answer is Answer.TRUE:
            self.kept ^= self._chunk()
            self._line = self._line[:start] + self._line[self._end :]
            self._removed = True
        self._end = start
        if self._end == 0:
            self._next_round()

    def fork(self) -> Self:
        return copy(self)  # `_line` is replaced, never changed

    def chance(self) -> float:
        return 0.3

    def remaining(self) -> float:
        return self._end / self._size + 2 * len(self._line) / self._size

    def _chunk(self) -> Question:
        return united(self._line[max(self._end - self._size, 0) : self._end])

    def _next_round(self) -> None:
        if self._size > 1 or self._removed:
            self._end = len(self._line)
        self._size, self._removed = max(self._size // 2, 1), False
