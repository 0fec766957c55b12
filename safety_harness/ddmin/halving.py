"""Leave out chunks of halving length, from the end on: for texts, whose lines depend on earlier lines.

This is the coarse-to-fine order of line reducers such as lithium. Every chunk of one length is tried once, then every
chunk of half that length, down to single units. The last round is repeated until it removes nothing. The search makes
no use of monotonicity, so it is not misled where neighbours can only go together, as the lines of a program.
"""

from __future__ import annotations

from copy import copy
from typing import Self

from safety_harness.ddmin.evidence import ranks, united
from safety_harness.ddmin.types import Answer, PriorOrder, Question


class Halving:
    """A search of at most n * (n + 5) / 2 questions for n units. Questions that repeat an earlier one cost nothing.

    With a prior the least important units are left out first, instead of the last units.
    """

    def __init__(self, kept: Question, order: PriorOrder = None) -> None:
        self.kept = kept
        self._line = ranks(kept) if order is None else ranks(kept)[::-1]
        self._size = 1 << max((len(self._line) - 1).bit_length() - 1, 0)
        self._end = len(self._line)
        self._removed = False  # whether this round has removed anything

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
        return 0.3  # this search forecasts nothing; a guess serves to look ahead

    def remaining(self) -> float:
        # The rest of this round, and the next round, which has twice as many chunks. Later rounds may come, or not.
        return self._end / self._size + 2 * len(self._line) / self._size

    def _chunk(self) -> Question:
        """Return the units that the current question leaves out."""
        return united(self._line[max(self._end - self._size, 0) : self._end])

    def _next_round(self) -> None:
        """Start again from the end with half the length; end after a round of single units that removed nothing."""
        if self._size > 1 or self._removed:
            self._end = len(self._line)
        self._size, self._removed = max(self._size // 2, 1), False
